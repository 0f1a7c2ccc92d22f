-- Notes which queue an instance uses for a region, and says which others are used.
-- ARGV: 1 µs for which a note counts; and for each note: the region, who uses the queue, the queue.
-- Answers this server's run id, and for each note the queues of the notes of other instances that
-- are not the same: of an instance's own feed and consumer, one may be the first to meet a new server
-- of the queue. A note from the future says that the clock was set back: it is forgotten, and made
-- again by its instance.
-- Notes are few and small. They are written to a full server too, if it lets them: a cell that
-- refuses them still says what it knows.
local call, match, format = redis.call, string.match, string.format
local time, live = redis.call('TIME'), tonumber(ARGV[1])
local now = time[1] * 1000000 + time[2]

local function others(key, who, mine)
  local found, seen, all = {}, {}, call('HGETALL', key)
  for i = 1, #all, 2 do
    local at, queue = match(all[i + 1], '^(%S+) (.*)$')
    at = tonumber(at) or 0 -- 0: a note that no instance wrote
    if at > now or now - at > live then
      call('HDEL', key, all[i])
    elseif match(all[i], '^%S+') ~= match(who, '^%S+') and queue ~= mine and not seen[queue] then
      seen[queue] = true
      found[#found + 1] = queue
    end
  end
  return found
end

local answers = {}
for i = 2, #ARGV, 3 do
  local key = 'queues:' .. ARGV[i]
  answers[#answers + 1] = others(key, ARGV[i + 1], ARGV[i + 2])
  redis.pcall('HSET', key, ARGV[i + 1], format('%.0f %s', now, ARGV[i + 2]))
end
return { match(call('INFO', 'server'), 'run_id:(%w+)'), answers }
