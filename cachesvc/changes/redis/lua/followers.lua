-- Takes a report, and lists the followers.
-- ARGV: 1 the follower that reports (empty: none), 2 its position, 3 the epoch that the position is
-- of, 4 the number of followers that it knows (empty: it wants the list).
-- Answers the epoch, and [follower, position, µs of silence] of every follower that is silent for
-- at most a minute; the others are forgotten. If there are as many as the caller knows, answers the
-- epoch alone: n followers that list n at every heartbeat are work for n² of them. A position in
-- another epoch's stream says nothing of this stream, whose ids may be smaller.
local SILENT_US = 60000000

local epoch = epoch_of('fences')
if ARGV[1] ~= '' then
  call('HSET', 'fences:readers', ARGV[1], ARGV[2] .. ' ' .. whole(now) .. ' ' .. ARGV[3])
end

if ARGV[4] == whole(call('HLEN', 'fences:readers')) then
  return { epoch }
end

local found, all = {}, call('HGETALL', 'fences:readers')
for i = 1, #all, 2 do
  local position, at, under = match(all[i + 1], '^(%S+) (%S+) (%S+)$')
  at = at or 0 -- a report that nobody here wrote
  if tonumber(at) > now then -- the clock was set back: the silence is counted from now on
    at = whole(now)
    call('HSET', 'fences:readers', all[i], position .. ' ' .. at .. ' ' .. under)
  end
  local silent = now - at
  if silent > SILENT_US then
    call('HDEL', 'fences:readers', all[i])
  else
    found[#found + 1] = { all[i], under == epoch and position or '0-0', silent }
  end
end
return { epoch, found }
