-- Takes parked changes that were not tried for a time. ARGV: 1 that time in µs, 2 how many changes.
-- Answers id, fields and where it is missing of each; they count as tried now.
local found = {}
local oldest = call('ZRANGEBYSCORE', 'changes:tried', '-inf', whole(now - ARGV[1]), 'LIMIT', 0, ARGV[2])
for i, id in ipairs(oldest) do
  call('ZADD', 'changes:tried', whole(now), id)
  found[i] = { id, fields_of(id), call('HGET', 'changes:missing', id) or '' }
end
return found
