-- Publishes items that say something of all changes: a heartbeat, or the fences on every namespace
-- after a possible loss.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 the epoch of `changes` that they are of,
-- 4 µs for which a heartbeat is recent, or '' if the items announce the loss of that epoch, 5 number of items; per item: number of its
-- arguments, the arguments.
-- Answers the epoch of `fences`. Publishes no heartbeat if another consumer has published one lately:
-- of consumers that have found at the same time that one is due, one publishes. Refused if `changes` is of another
-- epoch here: what was read there says nothing of this server's changes, and a consumer that
-- announces an epoch which has passed meanwhile must not hide the present one.
if ARGV[3] ~= epoch_of_changes() then
  return redis.error_reply('OTHEREPOCH this queue is not the one whose changes were looked at')
end
local announces = ARGV[4] == ''
if announces or not has_beaten(ARGV[4]) then
  trim(tonumber(ARGV[2]))
  publish_all(ARGV[1], 5)
  if announces then
    call('SET', 'changes:announced', ARGV[3])
  else
    call('SET', 'fences:beat', whole(now))
  end
end
return epoch_of('fences')
