-- ARGV: 1 position, 2 how many items. Answers the epoch and the items from the position on, the one at the position (if it is
-- still there) included: that it is there is what shows that none in between was lost. Ends early after a mebibyte: a reader that
-- starts from a million fences keeps answering between its reads.
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
