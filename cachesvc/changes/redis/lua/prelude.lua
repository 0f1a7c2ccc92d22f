-- The beginning of every script of a queue. A region's queue is one server and keeps:
--   changes            stream, one consumer group `cachesvc`; an item has the producer's fields; one
--                      consumer of the group takes nothing and is named as the epoch
--   changes:epoch      random, made with the group. With the server's run id and replication id and the
--                      number of lost changes it is the epoch: another one means that changes may be lost
--   changes:closed     number of changes that these scripts took out of the stream. What was added,
--                      is not closed and is not there was taken out by somebody else, and is lost
--   changes:consumers  hash: incarnation of a consumer → µs of its last note and of its first one, its
--                      cells with their run ids, its name
--   changes:announced  the epoch whose possible loss has been announced
--   changes:ahead      id of the oldest open change if it is ahead of the clock, and the µs at which
--                      that was first seen
--   changes:sources    hash: replication slot → note of its reader (`cachesvc cdc`, postgres/notes.py)
--   changes:dead       stream of the changes that were buried, with their reason
--   parked:at:<cell>   hash: name of a target that the cell has not taken → the newest `at` of its
--                      unapplied fences, and the placement (parked_items.py)
--   parked:order:<cell> sorted set: the same names by the number of their first parking
--   parked:cells       hash: the cells with something parked → µs of the last try, bytes of the names,
--                      newest `at`
--   parked:number      number of the last parking
--   fences             stream; fence_items.py has the fields
--   fences:epoch       as `changes:epoch`, made with the stream `fences`
--   fences:beat        µs of the last heartbeat
--   fences:paced       sorted set: paced fences (fence_items.py) by the µs until which they are in
--                      force; at most MOST_PACED (publish.lua)
--   fences:given_up    number of paced fences for which there was no room
--   fences:readers     hash of the followers: region/instance#incarnation → position, µs of its last
--                      report, epoch
--   receipts:<n>       hash: id → state letter, position, cells, missed cells, reason (or, for a change
--                      of which something is parked, `parked:number` at that time); a line each.
--                      <n> is the ms of the id without the last digit, so that a busy queue keeps a
--                      hundred receipts in one compact hash
--   shares:…           shares of limits that hold for the region (shares.lua)
--   topology:…         versions of the topology document (put_document.lua)
--   audit              stream of the audit items: who invalidated what, and when
local call, match, format = redis.call, string.match, string.format

-- Older servers claim changes that are gone from the stream and do not say so (XAUTOCLAIM), and
-- have no `entries-added`. Every promise of the queue is made by a script, so this refuses them all.
if not (redis.REDIS_VERSION_NUM and redis.REDIS_VERSION_NUM >= 0x00070000) then
  return redis.error_reply('TOOOLD a queue needs Redis 7.0, or Valkey 7.2, or later')
end

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- A replica answers reads, of what its master had. Here it is left for the master: the name is
-- looked up anew after this error (redis_connections.py).
local about = call('INFO', 'server', 'replication')
local run_id = match(about, 'run_id:(%w+)')
-- It changes whenever the process has been a replica: its data may be another server's since.
local replication_id = match(about, 'master_replid:(%w+)') or ''
if match(about, 'role:(%w+)') ~= 'master' then
  return redis.error_reply('READONLY this queue is a replica: what it says is not certain')
end

local RECEIPT_SECONDS, AUDIT_ITEMS, DEAD_ITEMS = 900, 100000, 10000
local MOST_PARKED, MOST_PARKED_BYTES = 100000, 16777216 -- for each cell

local function whole(number)
  return format('%.0f', number)
end

local function epoch_of(stream)
  return (call('GET', stream .. ':epoch') or '') .. ':' .. run_id .. '.' .. replication_id
end

-- Returns the epoch of `changes`. Its last part is the number of changes that left the stream and
-- were not closed by these scripts (XTRIM, XDEL, a producer's XADD with MAXLEN): so a loss is another
-- epoch. The number is never set back, and it is the same for all who ask.
local function epoch_of_changes()
  local about, stream = redis.pcall('XINFO', 'STREAM', 'changes'), {}
  for i = 1, #about, 2 do -- none: there is no stream
    stream[about[i]] = about[i + 1]
  end
  local gone = (stream['entries-added'] or 0) - (stream['length'] or 0)
  return epoch_of('changes') .. ':' .. whole(gone - (call('GET', 'changes:closed') or 0))
end

-- Makes the consumer group if it is missing. The group starts from the beginning of the stream: it
-- also takes the changes that came before it. A group that is missing means that every change
-- accepted before is gone, with the stream or with the group's place in it, so the new group gets
-- an epoch of its own.
-- A group that somebody else made anew is known by its lack of a consumer that is named as the epoch.
-- (A server without memory left answers neither, and what was there is still there.)
local function make_group(candidate)
  local made = not redis.pcall('XGROUP', 'CREATE', 'changes', 'cachesvc', '0', 'MKSTREAM').err
  local function is_new(epoch)
    return redis.pcall('XGROUP', 'CREATECONSUMER', 'changes', 'cachesvc', 'epoch ' .. epoch) == 1
  end
  if made or is_new(call('GET', 'changes:epoch') or '') then
    call('SET', 'changes:epoch', candidate)
    is_new(candidate)
  end
end

-- Returns the id up to which changes were given to consumers; nothing without a group.
local function last_delivered()
  for _, group in ipairs(redis.pcall('XINFO', 'GROUPS', 'changes')) do -- none: there is no stream
    local fields = {}
    for i = 1, #group, 2 do
      fields[group[i]] = group[i + 1]
    end
    if fields['name'] == 'cachesvc' then
      return fields['last-delivered-id']
    end
  end
end

-- True if a change waits to be given to a consumer, or if there is no group yet.
local function is_waiting()
  local delivered = last_delivered()
  return not delivered or #call('XRANGE', 'changes', '(' .. delivered, '+', 'COUNT', 1) > 0
end

-- Drops items of `fences` older than the retention (ms), and paced fences that are not in force:
-- ten thousand items and a thousand paced fences at most.
-- A script that may need memory trims before its first write. A server without memory left refuses
-- the first write of a script if that write may need memory, and no later one: so a queue that is
-- full of old fences takes changes again. While nothing is old, nothing is written here: the drop
-- is a write, too, and would open a queue that is full of what it must keep.
-- The newest item stays, however old it is: followers that have it would meet a gap.
local function trim(retention_ms)
  local oldest = now / 1000 - retention_ms
  local first = call('XRANGE', 'fences', '-', '+', 'COUNT', 1)[1]
  if first and tonumber(match(first[1], '^%d+')) < oldest then
    local newest = tonumber(match(call('XREVRANGE', 'fences', '+', '-', 'COUNT', 1)[1][1], '^%d+'))
    call('XTRIM', 'fences', 'MINID', '~', whole(math.min(oldest, newest)), 'LIMIT', 10000)
  end
  local over = call('ZCOUNT', 'fences:paced', '-inf', whole(now))
  if over > 0 then
    call('ZREMRANGEBYRANK', 'fences:paced', 0, math.min(over, 1000) - 1)
  end
end

-- Pushes an item of `fences` to the followers, with the id of the item before it (pushes.py). The
-- channel has the random part of the epoch in its name: channels are of all databases of a server.
-- Of an item that is long it says only that there is one. A user without the right to publish pushes
-- nothing, and followers find that out.
local MOST_PUSHED = 1024
local channel, pushed_epoch -- of the stream, read once per script
local function push(before, id, fields)
  local body = table.concat(fields)
  channel = channel or 'fences:' .. call('GET', 'fences:epoch')
  pushed_epoch = pushed_epoch or epoch_of('fences')
  local head = { pushed_epoch, before, id }
  if #body > MOST_PUSHED then
    body = ''
  else
    for _, part in ipairs(fields) do
      head[#head + 1] = #part
    end
  end
  redis.pcall('PUBLISH', channel, table.concat(head, ' ') .. '\n' .. body)
end

-- Appends an item to `fences`, and pushes it. If there is no stream, it is made, with its epoch.
local newest
local function publish(candidate, fields)
  if not newest then
    call('SET', 'fences:epoch', candidate, 'NX')
  end
  local last = not newest and call('XREVRANGE', 'fences', '+', '-', 'COUNT', 1)[1]
  local before, id = newest or last and last[1] or '-', call('XADD', 'fences', '*', unpack(fields))
  newest = id
  push(before, id, fields)
  return id
end

-- Appends the items that stand in ARGV from `at` on: their number; for each the number of its
-- arguments, and the arguments. Returns the id of the last one, or ''.
local function publish_all(candidate, at)
  local position, items = '', tonumber(ARGV[at])
  at = at + 1
  for _ = 1, items do
    local size = tonumber(ARGV[at])
    position = publish(candidate, { unpack(ARGV, at + 1, at + size) })
    at = at + size + 1
  end
  return position
end

-- True if a heartbeat was published within so many µs. One that is ahead of the clock was before the
-- clock was set back, and says nothing.
local function has_beaten(within_us)
  local last = tonumber(call('GET', 'fences:beat') or 0)
  return last <= now and now - last < tonumber(within_us)
end

local function paced_in_force()
  return call('ZRANGEBYSCORE', 'fences:paced', '(' .. whole(now), '+inf')
end

-- Takes a change out of the stream. False if it is not there.
local function close(id)
  call('XACK', 'changes', 'cachesvc', id)
  if call('XDEL', 'changes', id) == 0 then
    return false
  end
  call('INCR', 'changes:closed')
  return true
end

-- Returns the fields of a change in the stream.
local function fields_of(id)
  local found = call('XRANGE', 'changes', id, id)[1]
  return found and found[2]
end

-- Returns of a cell with something parked: µs of the last try, bytes of the names, newest `at`.
local function about_cell(cell)
  local tried, bytes, newest = match(call('HGET', 'parked:cells', cell) or '0 0 0', '^(%S+) (%S+) (%S+)$')
  return tonumber(tried), tonumber(bytes), tonumber(newest)
end

local function note_cell(cell, tried, bytes, newest)
  call('HSET', 'parked:cells', cell, whole(tried) .. ' ' .. whole(bytes) .. ' ' .. whole(newest))
end

-- Parks targets of one cell, each given as [cell, name, at, placement].
local function park_in(cell, targets, number)
  local ats, order = 'parked:at:' .. cell, 'parked:order:' .. cell
  local tried, bytes, newest = about_cell(cell)
  local all = call('HEXISTS', ats, '*') == 1 and '*'
  local names, latest = {}, {}
  for _, target in ipairs(targets) do
    local name, at = all or target[2], target[3]
    if at < now - 60000000 then -- of an instance whose clock is behind: the commit was before now
      at, target[3] = now, now
    end
    if not latest[name] then
      names[#names + 1], latest[name] = name, target
    elseif latest[name][3] < at then
      latest[name] = target
    end
    newest = math.max(newest, at)
  end
  for first = 1, #names, 500 do -- Lua passes a few thousand arguments at most
    local last = math.min(first + 499, #names)
    local known, texts, added = call('HMGET', ats, unpack(names, first, last)), {}, {}
    for i = first, last do
      local name, text = names[i], known[i - first + 1]
      local at = latest[name][3]
      if not text or tonumber(match(text, '^%d+')) < at then
        texts[#texts + 1], texts[#texts + 2] = name, whole(at) .. ' ' .. latest[name][4]
      end
      if not text then
        added[#added + 1], added[#added + 2] = number, name
        bytes = bytes + #name
      end
    end
    if #texts > 0 then
      call('HSET', ats, unpack(texts))
    end
    if #added > 0 then
      call('ZADD', order, unpack(added))
    end
  end
  if bytes > MOST_PARKED_BYTES or call('ZCARD', order) > MOST_PARKED then
    local first = call('ZRANGE', order, 0, 0, 'WITHSCORES')[2]
    call('UNLINK', ats, order)
    call('HSET', ats, '*', whole(newest) .. ' ' .. targets[1][4])
    call('ZADD', order, first, '*')
    bytes = 1
  end
  note_cell(cell, tried, bytes, newest)
end

-- Parks targets, and returns the number of this parking.
-- A target is kept once per cell, with its newest `at` and its first number. Beyond the bounds all of a
-- cell becomes one name, `*`, with the newest `at` of all and the first number of all: everything in
-- that cell is to be fenced. So no cell that is away fills the queue.
local function park(targets)
  if #targets == 0 then
    return call('GET', 'parked:number') or '0'
  end
  local number, of = call('INCR', 'parked:number'), {}
  for _, target in ipairs(targets) do
    local same_cell = of[target[1]] or {}
    of[target[1]], same_cell[#same_cell + 1] = same_cell, target
  end
  for cell, found in pairs(of) do
    park_in(cell, found, number)
  end
  return number
end

-- Forgets names that are parked for a cell. The cell is then due at once.
local function unpark(cell, names)
  local _, bytes, newest = about_cell(cell)
  for _, name in ipairs(names) do
    call('HDEL', 'parked:at:' .. cell, name)
    call('ZREM', 'parked:order:' .. cell, name)
    bytes = bytes - #name
  end
  if call('EXISTS', 'parked:at:' .. cell) == 0 then
    call('HDEL', 'parked:cells', cell)
  elseif #names > 0 then
    note_cell(cell, 0, bytes, newest)
  end
end

local function receipts_of(id)
  return 'receipts:' .. match(id, '^(%d-)%d%-')
end

local function keep_receipt(id, receipt)
  call('HSET', receipts_of(id), id, receipt)
  call('EXPIRE', receipts_of(id), RECEIPT_SECONDS)
end
