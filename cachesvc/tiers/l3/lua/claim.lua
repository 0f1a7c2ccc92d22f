-- Notes which queue an instance uses for a region, and says which others are used.
-- ARGV: 1 µs for which a note counts; and for each note: the region, who uses the queue, the queue.
-- Answers this server's run id, and for each note the queues of the notes of other instances that
-- are not the same: of an instance's own feed and consumer, one may be the first to meet a new server
-- of the queue. A note from the future says that the clock was set back: it is forgotten, and made
-- again by its instance.
-- A note whose queue is an instance's journal says itself for how long it counts, whether its instance
-- lives or not: `journal:<word>:<number>:<µs>`. Of two of one journal, that with the larger number stays.
-- Notes are few and small. They are written to a full server too, if it lets them: a cell that
-- refuses them still says what it knows.
local call, match, format = redis.call, string.match, string.format
local time, live = redis.call('TIME'), tonumber(ARGV[1])
local now = time[1] * 1000000 + time[2]

-- Returns the number of a journal's note, and for how long it counts; nothing for other notes.
local function of_journal(queue)
  local number, counts = match(queue, '^journal:%x+:(%d+):(%d+)$')
  return tonumber(number), tonumber(counts)
end

local function others(key, who, mine)
  local found, seen, all = {}, {}, call('HGETALL', key)
  for i = 1, #all, 2 do
    local at, queue = match(all[i + 1], '^(%S+) (.*)$')
    at = tonumber(at) or 0 -- 0: a note that no instance wrote
    local number, counts = of_journal(queue or '')
    if number and at > now then -- nobody may be there to make it again
      at = now
      redis.pcall('HSET', key, all[i], format('%.0f %s', now, queue))
    end
    if at > now or now - at > math.max(live, counts or 0) then
      call('HDEL', key, all[i])
    elseif counts ~= 0 and match(all[i], '^%S+') ~= match(who, '^%S+') and queue ~= mine and not seen[queue] then
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
  local number = of_journal(ARGV[i + 2])
  local known = number and of_journal(match(call('HGET', key, ARGV[i + 1]) or '', '^%S+ (.*)$') or '')
  if not known or known <= number then
    redis.pcall('HSET', key, ARGV[i + 1], format('%.0f %s', now, ARGV[i + 2]))
  end
end
return { match(call('INFO', 'server'), 'run_id:(%w+)'), answers }
