-- Publishes a heartbeat, unless another consumer has published one lately.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 µs for which a heartbeat is recent; then fields
-- and values of the item.
-- Answers the epoch. The last heartbeat is asked for here again: of consumers that have found at the
-- same time that one is due, one publishes.
if not has_beaten(ARGV[3]) then
  trim(tonumber(ARGV[2]))
  publish(ARGV[1], { unpack(ARGV, 4) })
  call('SET', 'fences:beat', whole(now))
end
return epoch_of('fences')
