-- Says how far the consumer group is. ARGV: 1 candidate for the epoch of `changes`.
-- Answers in µs the time of the oldest open change, else this server's clock; the epoch; the epoch
-- that was announced; this server's clock; and the id of that oldest change, or ''.
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

local first = call('XRANGE', 'changes', '-', '+', 'COUNT', 1)[1]
local oldest = first and first[1]
local complete_to = oldest and accepted_at(oldest) or now
local announced = call('GET', 'changes:announced') or ''
return { complete_to, epoch_of_changes(), announced, now, oldest or '' }
