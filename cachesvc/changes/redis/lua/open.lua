-- Opens the stream for a follower.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 the follower to register (empty: none).
-- An empty stream gets an item for this (`o`): so a loss from now on leaves the follower without
-- the item at its position, which is how the follower sees the loss.
-- Answers the epoch, the ids of the oldest retained item and of the newest item, and the paced
-- fences in force.
trim(tonumber(ARGV[2]))
if call('XLEN', 'fences') == 0 then
  publish(ARGV[1], { 'o', '1' })
end
local epoch = epoch_of('fences')
if ARGV[3] ~= '' then -- nothing is merged yet
  call('HSET', 'fences:readers', ARGV[3], '0-0 ' .. whole(now) .. ' ' .. epoch)
end
local oldest = call('XRANGE', 'fences', '-', '+', 'COUNT', 1)[1][1]
local newest = call('XREVRANGE', 'fences', '+', '-', 'COUNT', 1)[1][1]
return { epoch, oldest, newest, paced_in_force() }
