-- The beginning of every script of a queue. A region's queue is one server and keeps:
--   changes            stream, one consumer group `cachesvc`; an item has the producer's fields
--   changes:epoch      random, made with the group. With the server's run id it is the epoch:
--                      another epoch means that changes may be lost
--   changes:announced  the epoch whose possible loss has been announced
--   changes:parked     hash: id → fields (cmsgpack) of the changes whose fence is out and which a
--                      home cell has not taken
--   changes:missing    hash: id → the first `at` of a parked change, its placement, and the cells that
--                      have and have not taken it (receipt_lines.py)
--   changes:tried      sorted set: the same ids by the µs at which they were last tried
--   changes:dead       stream of the changes that were buried, with their reason
--   fences             stream; fence_items.py has the fields
--   fences:epoch       as `changes:epoch`, made with the stream `fences`
--   fences:paced       sorted set: paced fences (fence_items.py) by the µs until which they are in
--                      force
--   fences:readers     hash of the followers: region/instance → position, µs of its last report,
--                      epoch
--   receipts:<n>       hash: id → state letter, position, cells, missed cells, reason; a line each.
--                      <n> is the ms of the id without the last digit, so that a busy queue keeps a
--                      hundred receipts in one compact hash
--   audit              stream of the audit items: who invalidated what, and when
local call, match, format = redis.call, string.match, string.format

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local RECEIPT_SECONDS, AUDIT_ITEMS, DEAD_ITEMS = 900, 100000, 10000

local function whole(number)
  return format('%.0f', number)
end

local function epoch_of(stream)
  return (call('GET', stream .. ':epoch') or '') .. ':' .. match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- Makes the consumer group if it is missing. The group starts from the beginning of the stream: it
-- also takes the changes that came before it. A group that is missing means that every change
-- accepted before is gone, with the stream or with the group's place in it, so the new group gets
-- an epoch of its own.
local function make_group(candidate)
  if not redis.pcall('XGROUP', 'CREATE', 'changes', 'cachesvc', '0', 'MKSTREAM').err then
    call('SET', 'changes:epoch', candidate)
  end
end

-- Appends an item to `fences`, and drops items older than the retention (ms). If there is no
-- stream, it is made, with its epoch.
local function publish(candidate, retention_ms, fields)
  call('SET', 'fences:epoch', candidate, 'NX')
  local oldest = whole(math.max(now / 1000 - retention_ms, 0))
  return call('XADD', 'fences', 'MINID', '~', oldest, '*', unpack(fields))
end

local function paced_in_force()
  return call('ZRANGEBYSCORE', 'fences:paced', '(' .. whole(now), '+inf')
end

-- Takes a change out of the stream or out of the parked ones. False if it is in neither.
local function close(id)
  call('XACK', 'changes', 'cachesvc', id)
  if call('XDEL', 'changes', id) == 1 then
    return true
  end
  call('ZREM', 'changes:tried', id)
  call('HDEL', 'changes:missing', id)
  return call('HDEL', 'changes:parked', id) == 1
end

-- Returns the fields of a change, in the stream or parked.
local function fields_of(id)
  local found = call('XRANGE', 'changes', id, id)[1]
  if found then
    return found[2]
  end
  local packed = call('HGET', 'changes:parked', id)
  return packed and cmsgpack.unpack(packed)
end

local function receipts_of(id)
  return 'receipts:' .. match(id, '^(%d-)%d%-')
end

local function keep_receipt(id, receipt)
  call('HSET', receipts_of(id), id, receipt)
  call('EXPIRE', receipts_of(id), RECEIPT_SECONDS)
end
