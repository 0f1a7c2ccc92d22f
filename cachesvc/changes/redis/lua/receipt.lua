-- Looks up receipts. ARGV: ids of changes.
-- Answers the epoch of `fences`, and the receipt of each. For a change without one (not yet, or no
-- longer) answers 'o' if it is in the stream; else nothing.

-- Returns the receipt of a change of which something was parked, as it is by now. A cell has taken it
-- once nothing is left of what was parked for it until then: its number is the last of that time, and
-- a target that is parked again keeps its first number.
local function by_now(receipt)
  local position, cells, missed, number = match(receipt, '^p([^\n]*)\n([^\n]*)\n([^\n]*)\n(%d+)$')
  if not number then
    return receipt
  end
  local took, left = {}, {}
  for cell in string.gmatch(cells .. ',' .. missed, '[^,]+') do
    local first = call('ZRANGE', 'parked:order:' .. cell, 0, 0, 'WITHSCORES')[2]
    local is_missing = string.find(',' .. missed .. ',', ',' .. cell .. ',', 1, true)
    local at = is_missing and first and tonumber(first) <= tonumber(number) and left or took
    at[#at + 1] = cell
  end
  table.sort(took)
  local lines = position .. '\n' .. table.concat(took, ',') .. '\n' .. table.concat(left, ',') .. '\n'
  return (#left > 0 and 'p' or 'd') .. lines
end

local found = {}
for i, id in ipairs(ARGV) do
  local receipt = call('HGET', receipts_of(id), id)
  found[i] = receipt and by_now(receipt) or #call('XRANGE', 'changes', id, id) == 1 and 'o'
end
return { epoch_of('fences'), found }
