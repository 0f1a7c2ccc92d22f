-- ARGV: 1 id of the change, 2 why. Its receipt keeps what a parked one's said of its fence.
local fields = fields_of(ARGV[1])
if fields then
  call('XADD', 'changes:dead', 'MAXLEN', '~', DEAD_ITEMS, '*', 'id', ARGV[1], 'reason', ARGV[2], unpack(fields))
  local known = match(call('HGET', receipts_of(ARGV[1]), ARGV[1]) or '', '^.([^\n]*\n[^\n]*\n[^\n]*\n)') or '\n\n\n'
  keep_receipt(ARGV[1], 'b' .. known .. ARGV[2])
  close(ARGV[1])
end
