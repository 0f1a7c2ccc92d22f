-- Ends the parking of targets that their cells have taken.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 the placement, 4 JSON: [parked, taken]; then
-- for each of `taken` the field and the value of the fence that says so (may be empty).
--   parked:  [cell, name, at, placement] of targets to park in the same step
--   taken:   [cell, name, the text that the cell was tried with, the servers that have applied it]
-- A text that is another one by now has a later `at`, which the cell has not taken: it stays.
-- The fence is published with the last cell: an unapplied fence tells instances to distrust all cells
-- that are home to its target.
local parked, taken = unpack(cjson.decode(ARGV[4]))
trim(tonumber(ARGV[2]))
park(parked)

local function is_parked(name)
  for _, cell in ipairs(call('HKEYS', 'parked:cells')) do
    if call('HEXISTS', 'parked:at:' .. cell, name) == 1 or call('HEXISTS', 'parked:at:' .. cell, '*') == 1 then
      return true
    end
  end
end

local joined, items = {}, {}
for i, one in ipairs(taken) do
  local cell, name, text, servers = unpack(one)
  if call('HGET', 'parked:at:' .. cell, name) == text then
    unpark(cell, { name })
    local field, value = ARGV[4 + i]:sub(1, 1), ARGV[4 + i]:sub(2)
    if field ~= '' and not is_parked(name) then
      if field == 'p' then
        joined[servers] = (joined[servers] or '') .. value
      else
        items[#items + 1] = { servers, field, value }
      end
    end
  end
end
for servers, pairs_of in pairs(joined) do
  items[#items + 1] = { servers, 'p', pairs_of }
end
for _, item in ipairs(items) do
  local servers = table.remove(item, 1)
  if ARGV[3] ~= '0' then
    item[#item + 1], item[#item + 2] = 'g', ARGV[3]
  end
  if servers ~= '' then
    item[#item + 1], item[#item + 2] = 'c', servers
  end
  publish(ARGV[1], item)
end
