-- Says how far the consumer group is, notes that a consumer is alive, and sends a heartbeat if it may.
-- ARGV: 1 candidate for the epochs of streams; 2 the consumer's incarnation (empty: none asks), 3 µs
-- for which a note counts, 4 its cells (`name=run id`, with commas), 5 its name, 6 retention in ms; and,
-- if it would send a heartbeat (contract.py, Beat), 7 µs for which a heartbeat is recent, 8 the latest
-- time that this clock may say, 9 and 10 the epochs of `changes` and `fences` that it has met, 11 the
-- oldest open change that it knows.
-- Answers in µs the time of the oldest open change, else this server's clock; the epoch; the epoch
-- that was announced; this server's clock; the id of that oldest change, or ''; the consumer's
-- rivals (kind, incarnation, name, whether it was first); the epoch of `fences`; what is not closed
-- (the changes in the stream, the targets that are parked, once per cell, the dead letters, the cells for
-- which more was parked than is kept, the paced fences that are kept, and those without room); and 1 if a
-- heartbeat is recent, or was sent in this step.
-- A change is open for as long as it is in the stream, whatever the group says of it: a change that
-- was taken by a consumer which somebody deleted is neither pending nor undelivered (adopt.lua).
make_group(ARGV[1])

-- Returns a time at which the change was accepted already. If the clock was set back meanwhile, the
-- id is ahead of it and says nothing: then it is the time at which that was first seen, so that the
-- answer stands still for as long as the change is open.
local function accepted_at(id)
  local at = tonumber(match(id, '^%d+')) * 1000
  if at <= now then
    return at
  end
  local seen, since = match(call('GET', 'changes:ahead') or '', '^(%S+) (%S+)$')
  if seen ~= id then
    since = whole(now)
    call('SET', 'changes:ahead', id .. ' ' .. since)
  end
  return math.min(tonumber(since), now)
end

-- True if two consumers are of two deployments: they have no cell by one name, or those that both
-- have reached are all different servers. A cell that was not reached (`c1=`) says nothing.
local function are_foreign(some, others)
  local cells, have_common, differ = {}, false, false
  for name, server in string.gmatch(some, '([^=,]+)=([^,]*)') do
    cells[name] = server
  end
  for name, server in string.gmatch(others, '([^=,]+)=([^,]*)') do
    local known = cells[name]
    have_common = have_common or known ~= nil
    if known and known ~= '' and server ~= '' then
      if known == server then
        return false
      end
      differ = true
    end
  end
  return differ or some ~= '' and others ~= '' and not have_common
end

-- Notes the consumer, and returns its rivals among the others that are alive. One of its own name
-- must have been heard of since this one came: else it is the one before it, which has died.
-- A note from the future says that the clock was set back: it is forgotten, and made again.
local function rivals()
  local me, live, cells, name = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
  local found, all, since = {}, call('HGETALL', 'changes:consumers'), now
  for i = 1, #all, 2 do
    if all[i] == me then
      since = math.min(now, tonumber(match(all[i + 1], '^%S+ (%S+)')) or now)
    end
  end
  for i = 1, #all, 2 do
    local at, came, its_cells, its_name = match(all[i + 1], '^(%S+) (%S+) (%S*) (.*)$')
    at, came = tonumber(at) or 0, tonumber(came) or 0 -- 0: a note that no consumer wrote
    local was_first = came < since or came == since and all[i] < me
    if now - at > live or at > now then
      call('HDEL', 'changes:consumers', all[i])
    elseif all[i] ~= me then
      if its_name == name and at > since then
        found[#found + 1] = { 'instance', all[i], its_name, was_first and 1 or 0 }
      end
      if are_foreign(cells, its_cells) then
        found[#found + 1] = { 'deployment', all[i], its_name, was_first and 1 or 0 }
      end
    end
  end
  redis.pcall(
    'HSET', 'changes:consumers', me, table.concat({ whole(now), whole(since), cells, name }, ' ')
  ) -- a server without memory left refuses this, and nothing else needs it
  return found
end

local function count()
  local parked, overflowed = 0, 0
  for _, cell in ipairs(call('HKEYS', 'parked:cells')) do
    parked = parked + call('ZCARD', 'parked:order:' .. cell)
    overflowed = overflowed + call('HEXISTS', 'parked:at:' .. cell, '*')
  end
  return {
    call('XLEN', 'changes'), parked, call('XLEN', 'changes:dead'), overflowed,
    call('ZCARD', 'fences:paced'), tonumber(call('GET', 'fences:given_up') or 0),
  }
end

local first = call('XRANGE', 'changes', '-', '+', 'COUNT', 1)[1]
local oldest = first and first[1]
local complete_to = oldest and accepted_at(oldest) or now
local announced = call('GET', 'changes:announced') or ''
local found = ARGV[2] ~= '' and rivals() or {}
local epoch, queue = epoch_of_changes(), epoch_of('fences')

-- True if there is nothing that only the consumer can decide: whether changes may have been lost,
-- whether this is the region's one queue, and whether a clock is wrong.
local function may_beat()
  for _, rival in ipairs(found) do
    if rival[1] == 'deployment' and rival[4] == 1 then
      return false
    end
  end
  return ARGV[9] == epoch and announced == epoch and ARGV[10] == queue and now <= tonumber(ARGV[8])
    and (not oldest or oldest ~= ARGV[11])
end

local beaten = ARGV[7] and has_beaten(ARGV[7])
if ARGV[7] and not beaten and may_beat() then
  trim(tonumber(ARGV[6]))
  publish(ARGV[1], { 'h', whole(complete_to) })
  call('SET', 'fences:beat', whole(now))
  beaten = true
end
return {
  complete_to, epoch, announced, now, oldest or '', found, queue, count(), beaten and 1 or 0,
}
