-- Reads items. ARGV: 1 position, 2 how many items, 3 and 4 the most bytes and the most fields and
-- values of an item; a larger one is answered with a field that nobody knows, in place of its own.
-- Answers the epoch and the items from the position on. The item at the position is included if it
-- is still there: its presence shows that no item in between was lost. The answer ends early after
-- a mebibyte: so a follower that starts from a million fences keeps answering its callers between
-- its reads.
local STEP, ENOUGH_BYTES = 16, 1048576
local items, bytes, from, most = {}, 0, ARGV[1], tonumber(ARGV[2])
local largest, most_fields = tonumber(ARGV[3]), 2 * ARGV[4]
repeat
  local some = call('XRANGE', 'fences', from, '+', 'COUNT', math.min(STEP, most - #items))
  for _, item in ipairs(some) do
    items[#items + 1] = item
    local size = 0
    for _, part in ipairs(item[2]) do
      size = size + #part
    end
    if size > largest or #item[2] > most_fields then
      item[2], size = { 'too large', whole(size) }, 32
    end
    bytes = bytes + size
  end
  from = #items > 0 and '(' .. items[#items][1]
until #some < STEP or #items == most or bytes >= ENOUGH_BYTES
return { epoch_of('fences'), items }
