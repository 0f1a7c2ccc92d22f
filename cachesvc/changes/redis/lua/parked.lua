-- Takes parked changes that were not tried for a time. ARGV: 1 that time in µs, 2 how many changes.
-- Answers id, fields and where it is missing of each; they count as tried now. A time of a try that
-- is ahead of the clock says that the clock was set back: that change is due, too.
local found = {}
local oldest = call('ZRANGEBYSCORE', 'changes:tried', '-inf', whole(now - ARGV[1]), 'LIMIT', 0, ARGV[2])
local left = ARGV[2] - #oldest
if left > 0 then
  local ahead = call('ZRANGEBYSCORE', 'changes:tried', '(' .. whole(now), '+inf', 'LIMIT', 0, left)
  for _, id in ipairs(ahead) do
    oldest[#oldest + 1] = id
  end
end
for i, id in ipairs(oldest) do
  call('ZADD', 'changes:tried', whole(now), id)
  found[i] = { id, fields_of(id), call('HGET', 'changes:missing', id) or '' }
end
return found
