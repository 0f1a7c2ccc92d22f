-- Notes which queue a consumer of a region uses, and says which others are used.
-- ARGV: 1 region, 2 the consumer, 3 its queue, 4 µs for which a note counts.
-- Answers this server's run id, and the queues of the region's other consumers that are not the
-- same. A note from the future says that the clock was set back: it counts from now on.
-- Notes are few and small. They are written to a full server too, if it lets them: a cell that
-- refuses them still says what it knows.
local call, match, format = redis.call, string.match, string.format

local key, time = 'queues:' .. ARGV[1], redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local all, others, seen = call('HGETALL', key), {}, {}
for i = 1, #all, 2 do
  local at, queue = match(all[i + 1], '^(%S+) (.*)$')
  if now - at > tonumber(ARGV[4]) then
    call('HDEL', key, all[i])
  elseif tonumber(at) > now then
    redis.pcall('HSET', key, all[i], format('%.0f %s', now, queue))
  end
  if math.abs(now - at) <= tonumber(ARGV[4]) and all[i] ~= ARGV[2] and queue ~= ARGV[3] and not seen[queue] then
    seen[queue] = true
    others[#others + 1] = queue
  end
end
redis.pcall('HSET', key, ARGV[2], format('%.0f %s', now, ARGV[3]))
return { match(call('INFO', 'server'), 'run_id:(%w+)'), others }
