-- Answers µs: the time of the oldest change that is pending or undelivered, else this server's clock.
local groups = redis.pcall('XINFO', 'GROUPS', 'changes')
if groups.err then -- no stream
  return now
end

local oldest, delivered = false, '-'
for _, group in ipairs(groups) do
  local fields = {}
  for i = 1, #group, 2 do
    fields[group[i]] = group[i + 1]
  end
  if fields['name'] == 'cachesvc' then
    delivered = '(' .. fields['last-delivered-id']
    oldest = call('XPENDING', 'changes', 'cachesvc')[2] -- older than anything undelivered
  end
end
if not oldest then
  local undelivered = call('XRANGE', 'changes', delivered, '+', 'COUNT', 1)[1]
  oldest = undelivered and undelivered[1]
end
return oldest and math.min(tonumber(match(oldest, '^%d+')) * 1000, now) or now
