-- Applies invalidations. Answers the `at` of each target, or a list with the reason of a refusal.
-- ARGV per target: 'k' for a key or 't' for a tag or namespace, id, '1' if soft, least in µs.
local replies = {}
trim(64 + #ARGV)

local function fence_key(id, soft, least)
  local at = math.max(next_fence(id), least)
  add_fence('fences', at, id)
  call('DEL', 'l:' .. id)
  if not soft then
    call('UNLINK', 'v:' .. id)
  elseif call('EXISTS', 'v:' .. id) == 1 then
    call('SETRANGE', 'v:' .. id, 16, struct.pack('>I8', at))
  end
  return at
end

-- Returns the least time of a new fence on a tag or namespace: later than the values of all puts that
-- wait, since the clock of its issuer may be behind that of the fence that they wait for. A time that
-- is further ahead than a put can wait was left by a clock that was set back.
local puts_until
local function past_waiting_puts()
  puts_until = puts_until or tonumber(call('HGET', 'meta', 'puts_until') or 0)
  return puts_until <= now + 4 * skew + 1000 and puts_until + 1 or 0
end

local function fence_many_keys(id, soft, least)
  local zset = soft and 'soft' or 'fences'
  local stored = tonumber(call('ZSCORE', zset, id) or 0)
  if least == 0 then
    least = now + 2 * skew + 1000
  end
  if least > now + skew then -- else the retry of a change that was published before
    least = math.max(least, past_waiting_puts())
  end
  if least > stored then
    add_fence(zset, least, id)
    return least
  end
  return stored
end

for i = 4, #ARGV, 4 do
  -- A caller's clock that is far ahead must not make a target uncachable until the time that it
  -- shows.
  local least = math.min(tonumber(ARGV[i + 3]), now + 4 * skew)
  local apply = ARGV[i] == 'k' and fence_key or fence_many_keys
  replies[#replies + 1] = attempt(apply, ARGV[i + 1], ARGV[i + 2] == '1', least)
end
return outcome(replies)
