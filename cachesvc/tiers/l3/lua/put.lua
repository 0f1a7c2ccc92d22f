-- Stores records as invalidations of their keys. Answers for each one of
--   at                 stored with as_of = at + 1
--   0                  its condition did not hold
--   {at, token, wait}  the key is invalidated; known fences refuse what is stored now. After `wait` µs
--                      the record can be filled under the lease `token`. The token is empty if the wait
--                      is longer than 3 S: then a clock was wrong.
--   {reason}           the server refused it
-- ARGV: 4 nonce of this batch; then per put: id, '1' to store only if nothing is there, ETags one of
-- which must match (16 characters each; '*' matches any; '' is no condition), the newest fence that
-- the caller knows in µs, kept_until in ms, record.
local nonce = ARGV[4]
local replies = {}
trim(64 + #ARGV)

-- Returns the ETag that a condition is checked against: that of the admissible copy. False if there
-- is none, or if the copy is negative.
local function present(id)
  local record = call('GET', 'v:' .. id)
  if not record then
    return false
  end
  local as_of, _, _, negative, tag_bytes = struct.unpack(HEAD, record)
  if negative == 1 or (has_fences and as_of <= newest('fences', id, record, tag_bytes)) then
    return false
  end
  return sub(record, HEAD_BYTES - 15, HEAD_BYTES)
end

-- True if a put of a value waits for its time (`WAITING` marks its lease): of two puts that store only
-- if nothing is there, the second one must not take the place of the first one.
local WAITING = '-put-'
local function awaited(id)
  return string.find(call('GET', 'l:' .. id) or '', WAITING, 1, true)
end

local function matches(etag, wanted)
  if wanted == '*' then
    return true
  end
  for i = 1, #wanted, 16 do
    if sub(wanted, i, i + 15) == etag then
      return true
    end
  end
  return false
end

local function allowed(id, if_absent, if_match)
  if if_absent == '' and if_match == '' then
    return true
  end
  local etag = present(id)
  return not (if_absent == '1' and (etag or awaited(id))) and (if_match == '' or (etag and matches(etag, if_match)))
end

-- No put is stored with an as_of later than now + S + 1 ms: the fences that come next may be issued by a
-- clock that is S behind this one, with a lead of 2 S + 1 ms, and have to refuse it.
local MARGIN = 1000

-- Returns how far a time is ahead of the fence that this clock would issue now, in µs.
local function ahead(at)
  return at - now - skew
end

-- Returns the newest fence that would refuse this record or make it stale, or that the caller knows.
local function bar(id, record, tag_bytes, known)
  local at = ahead(known) > 3 * skew and 0 or known -- a wrong clock's; no fence of this cell
  at = has_fences and math.max(at, newest('fences', id, record, tag_bytes)) or at
  return has_soft and math.max(at, newest('soft', id, record, tag_bytes)) or at
end

local function put(id, index, if_absent, if_match, known, kept_until_ms, record)
  if not allowed(id, if_absent, if_match) then
    return 0
  end
  local _, _, _, negative, tag_bytes = struct.unpack(HEAD, record)
  local at = next_fence(id)
  local barred_until = math.max(at, bar(id, record, tag_bytes, tonumber(known)))
  local wait = ahead(barred_until)
  local can_wait = wait < 3 * skew + MARGIN
  if can_wait then
    at = barred_until
  end
  add_fence('fences', at, id)
  if wait < MARGIN then
    call('DEL', 'l:' .. id)
    store(id, struct.pack('>I8', at + 1) .. sub(record, 9), kept_until_ms)
    return at
  end
  call('UNLINK', 'v:' .. id, 'l:' .. id)
  local token = ''
  if can_wait then
    local waiting_until = tonumber(call('HGET', 'meta', 'puts_until') or 0)
    if at > waiting_until or ahead(waiting_until) > 3 * skew + MARGIN then
      call('HSET', 'meta', 'puts_until', format('%.0f', at))
    end
    token = nonce .. (negative == 1 and '-' or WAITING) .. index .. ':' .. format('%.0f', at + 1)
    call('SET', 'l:' .. id, token, 'PX', format('%.0f', math.ceil(3 * skew / 1000) + 1000))
  end
  return { at, token, wait }
end

for i = 5, #ARGV, 6 do
  replies[#replies + 1] =
    attempt(put, ARGV[i], i, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
end
return outcome(replies)
