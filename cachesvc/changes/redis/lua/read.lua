-- Reads items. ARGV: 1 position, 2 how many items.
-- Answers the epoch and the items from the position on. The item at the position is included if it
-- is still there: its presence shows that no item in between was lost. The answer ends early after
-- a mebibyte: so a follower that starts from a million fences keeps answering its callers between
-- its reads.
local STEP, ENOUGH_BYTES = 16, 1048576
local items, bytes, from, most = {}, 0, ARGV[1], tonumber(ARGV[2])
repeat
  local some = call('XRANGE', 'fences', from, '+', 'COUNT', math.min(STEP, most - #items))
  for _, item in ipairs(some) do
    items[#items + 1] = item
    for _, part in ipairs(item[2]) do
      bytes = bytes + #part
    end
  end
  from = #items > 0 and '(' .. items[#items][1]
until #some < STEP or #items == most or bytes >= ENOUGH_BYTES
return { epoch_of('fences'), items }
