-- Accepts changes. ARGV: 1 the number of changes that may be open, 2 and on the events.
-- Answers the id of each, or nothing for one that found the stream full: trimming it would skip
-- changes that were promised. What is parked does not count: its fences are out, and one cell that is
-- away must not end the invalidations of all others.
local open, ids = call('XLEN', 'changes'), {}
for i = 2, #ARGV do
  if open < tonumber(ARGV[1]) then
    ids[i - 1] = call('XADD', 'changes', '*', 'event', ARGV[i])
    open = open + 1
  else
    ids[i - 1] = false
  end
end
return ids
