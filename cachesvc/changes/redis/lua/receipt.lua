-- Looks up a receipt. ARGV: 1 id of a change.
-- Answers the receipt. For a change without one (not yet, or no longer) answers the state that its
-- place shows: 'o' in the stream, 'p' parked; else nothing.
local kept = call('HGET', receipts_of(ARGV[1]), ARGV[1])
if kept then
  return kept
end
if #call('XRANGE', 'changes', ARGV[1], ARGV[1]) == 1 then
  return 'o'
end
return call('HEXISTS', 'changes:parked', ARGV[1]) == 1 and 'p'
