-- Says how far the consumer group is. ARGV: 1 candidate for the epoch of `changes`.
-- Answers in µs the time of the oldest change that is pending or undelivered, else this server's
-- clock; the epoch; the epoch that was announced; this server's clock; and the id of that oldest
-- change, or ''.
make_group(ARGV[1])

local delivered
for _, group in ipairs(call('XINFO', 'GROUPS', 'changes')) do
  local fields = {}
  for i = 1, #group, 2 do
    fields[group[i]] = group[i + 1]
  end
  if fields['name'] == 'cachesvc' then
    delivered = '(' .. fields['last-delivered-id']
  end
end

local oldest = call('XPENDING', 'changes', 'cachesvc')[2] -- older than every undelivered change
if not oldest then
  local undelivered = call('XRANGE', 'changes', delivered, '+', 'COUNT', 1)[1]
  oldest = undelivered and undelivered[1]
end

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

local complete_to = oldest and accepted_at(oldest) or now
local announced = call('GET', 'changes:announced') or ''
return { complete_to, epoch_of('changes'), announced, now, oldest or '' }
