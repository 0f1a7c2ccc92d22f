-- What the cell holds of one key; changes nothing. ARGV: 1 key id, 2 namespace id, then tag ids.
-- Answers record, lease token, broken_at, now, fence of the key, of the namespace, then of each tag ('' or 0 for nothing).
local id = ARGV[1]
local time = redis.call('TIME')
local replies = {
  redis.call('GET', 'v:' .. id) or '',
  redis.call('GET', 'l:' .. id) or '',
  tonumber(redis.call('HGET', 'meta', 'broken_at') or 0),
  time[1] * 1000000 + time[2],
}
for i = 1, #ARGV do
  replies[#replies + 1] = tonumber(redis.call('ZSCORE', 'fences', ARGV[i]) or 0)
end
return replies
