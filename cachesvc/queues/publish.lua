-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 number of items; per item: number of its arguments, the arguments; then
-- the ids of the changes that are done with it. Answers the epoch.
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  local size, fields = tonumber(ARGV[at]), {}
  for i = 1, size do
    fields[i] = ARGV[at + i]
  end
  publish(ARGV[1], tonumber(ARGV[2]), fields)
  at = at + size + 1
end
for i = at, #ARGV do
  redis.pcall('XACK', 'changes', 'cachesvc', ARGV[i])
  call('XDEL', 'changes', ARGV[i])
end
return epoch()
