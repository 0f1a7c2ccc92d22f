-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 the reader to register (empty: none). In an empty stream an item is appended
-- for this (`o`), so that whatever is lost from now on leaves a reader without the item at its position.
-- Answers the epoch, the ids of the oldest retained item and of the newest one, and the paced fences in force.
if call('XLEN', 'fences') == 0 then
  publish(ARGV[1], tonumber(ARGV[2]), { 'o', '1' })
end
local epoch = epoch_of('fences')
if ARGV[3] ~= '' then -- nothing is merged yet
  call('HSET', 'fences:readers', ARGV[3], '0-0 ' .. whole(now) .. ' ' .. epoch)
end
local oldest, newest = call('XRANGE', 'fences', '-', '+', 'COUNT', 1)[1][1], call('XREVRANGE', 'fences', '+', '-', 'COUNT', 1)[1][1]
return { epoch, oldest, newest, paced_in_force() }
