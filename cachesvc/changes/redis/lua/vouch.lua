-- Publishes items that say something of all changes: a heartbeat, or the fences on every namespace
-- after a possible loss.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 the epoch of `changes` that they are of,
-- 4 '1' if they announce the possible loss of that epoch, 5 number of items; per item: number of its
-- arguments, the arguments.
-- Answers the epoch of `fences` and the id of the last item. Refused if `changes` is of another
-- epoch here: what was read there says nothing of this server's changes, and a consumer that
-- announces an epoch which has passed meanwhile must not hide the present one.
if ARGV[3] ~= epoch_of_changes() then
  return redis.error_reply('OTHEREPOCH this queue is not the one whose changes were looked at')
end
trim(tonumber(ARGV[2]))
local position = publish_all(ARGV[1], 5)
if ARGV[4] == '1' then
  call('SET', 'changes:announced', ARGV[3])
end
return { epoch_of('fences'), position }
