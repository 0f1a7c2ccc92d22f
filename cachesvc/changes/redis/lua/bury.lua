-- Moves a change to the dead-letter stream. ARGV: 1 id of the change, 2 the reason.
-- Of more than 64 fields and values, the first 64 are kept.
-- If something of the change was parked, its receipt keeps the position of its fence and the cells.
local fields = fields_of(ARGV[1])
if fields then
  local id, reason = ARGV[1], ARGV[2]
  close(id) -- first: a queue without memory left refuses a first write that needs some
  call('XADD', 'changes:dead', 'MAXLEN', '~', DEAD_ITEMS, '*', 'id', id, 'reason', reason,
    unpack(fields, 1, math.min(#fields, 64)))
  local receipt = call('HGET', receipts_of(id), id) or ''
  local known = match(receipt, '^.([^\n]*\n[^\n]*\n[^\n]*\n)') or '\n\n\n'
  keep_receipt(id, 'b' .. known .. reason)
end
