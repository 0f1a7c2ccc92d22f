-- Accepts changes. ARGV: 1 the number of changes that may be open, 2 the consumer that takes them in the
-- same step (empty: whichever asks), 3 and on the events.
-- Answers the id of each, or nothing for one that found the stream full: trimming it would skip
-- changes that were promised. What is parked does not count: its fences are out, and one cell that is
-- away must not end the invalidations of all others.
-- A change that its caller applies is of no use to other consumers while the caller lives. So it counts
-- as taken by the caller's own consumer, and wakes none. Whatever came before must have been given to
-- somebody: it would be given to that consumer in place of the caller's own change.
local open, ids, added = call('XLEN', 'changes'), {}, 0
local takes = ARGV[2] ~= '' and not is_waiting()
for i = 3, #ARGV do
  if open < tonumber(ARGV[1]) then
    ids[i - 2] = call('XADD', 'changes', '*', 'event', ARGV[i])
    open, added = open + 1, added + 1
  else
    ids[i - 2] = false
  end
end
if takes and added > 0 then
  redis.pcall('XREADGROUP', 'GROUP', 'cachesvc', ARGV[2], 'COUNT', added, 'STREAMS', 'changes', '>')
end
return ids
