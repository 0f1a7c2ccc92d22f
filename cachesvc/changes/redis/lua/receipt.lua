-- Looks up receipts. ARGV: ids of changes.
-- Answers the receipt of each. For a change without one (not yet, or no longer) answers the state
-- that its place shows: 'o' in the stream, 'p' parked; else nothing.
local found = {}
for i, id in ipairs(ARGV) do
  found[i] = call('HGET', receipts_of(id), id)
    or #call('XRANGE', 'changes', id, id) == 1 and 'o'
    or call('HEXISTS', 'changes:parked', id) == 1 and 'p'
end
return found
