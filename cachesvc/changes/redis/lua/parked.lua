-- ARGV: 1 idle time in µs, 2 how many. Answers id and fields of each; they count as tried now.
local found = {}
for i, id in ipairs(call('ZRANGEBYSCORE', 'changes:tried', '-inf', whole(now - ARGV[1]), 'LIMIT', 0, ARGV[2])) do
  call('ZADD', 'changes:tried', whole(now), id)
  found[i] = { id, fields_of(id) }
end
return found
