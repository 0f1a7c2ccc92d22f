-- ARGV: 1 id of a change. Answers its receipt; of one that has none yet, or no longer, as much as its place says; else nothing.
local kept = call('HGET', receipts_of(ARGV[1]), ARGV[1])
if kept then
  return kept
end
if #call('XRANGE', 'changes', ARGV[1], ARGV[1]) == 1 then
  return 'o'
end
return call('HEXISTS', 'changes:parked', ARGV[1]) == 1 and 'p'
