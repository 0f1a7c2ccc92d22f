-- Reads the state of one key; changes nothing. ARGV: 1 key id, 2 namespace id, then tag ids.
-- Answers: record, lease token, ms that the lease has left, broken_at, now, the soft fence on the
-- key (from its record); then fence and soft fence of each id in ARGV, and of each tag of the
-- record. '' or 0 stands for nothing.
local id = ARGV[1]
local record = redis.call('GET', 'v:' .. id) or ''
local time = redis.call('TIME')
local soft_at, tags = 0, {}
if record ~= '' then
  local _, _, soft, _, tag_bytes = struct.unpack('>I8I8I8BI4B', record)
  soft_at = soft
  if tag_bytes > 0 then
    tags = cmsgpack.unpack(string.sub(record, 47, 46 + tag_bytes))
  end
end
local replies = {
  record,
  redis.call('GET', 'l:' .. id) or '',
  redis.call('PTTL', 'l:' .. id),
  tonumber(redis.call('HGET', 'meta', 'broken_at') or 0),
  time[1] * 1000000 + time[2],
  soft_at,
}
for _, targets in ipairs({ ARGV, tags }) do
  for _, target in ipairs(targets) do
    replies[#replies + 1] = tonumber(redis.call('ZSCORE', 'fences', target) or 0)
    replies[#replies + 1] = tonumber(redis.call('ZSCORE', 'soft', target) or 0)
  end
end
return replies
