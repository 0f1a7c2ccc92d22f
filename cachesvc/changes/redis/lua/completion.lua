-- Says how far the consumer group is. ARGV: 1 candidate for the epoch of `changes`.
-- Answers in µs the time of the oldest change that is pending or undelivered, else this server's
-- clock; the epoch; and the epoch that was announced.
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
local complete_to = oldest and math.min(tonumber(match(oldest, '^%d+')) * 1000, now) or now
return { complete_to, epoch_of('changes'), call('GET', 'changes:announced') or '' }
