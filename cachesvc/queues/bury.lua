-- ARGV: 1 id of the change, 2 why it cannot be read.
local found = call('XRANGE', 'changes', ARGV[1], ARGV[1])[1]
if found then
  call('XADD', 'changes:dead', 'MAXLEN', '~', '10000', '*', 'id', ARGV[1], 'reason', ARGV[2], unpack(found[2]))
end
redis.pcall('XACK', 'changes', 'cachesvc', ARGV[1])
call('XDEL', 'changes', ARGV[1])
return 1
