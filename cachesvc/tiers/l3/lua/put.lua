-- Stores records as invalidations of their keys. Answers `at` for each, 0 if its condition did not
-- hold, or a list with the reason of a refusal.
-- ARGV per put: id, '1' to store only if nothing is there, ETags one of which must match (16
-- characters each; '*' matches any; '' is no condition), kept_until in ms, record.
local replies = {}

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
  return not (if_absent == '1' and etag) and (if_match == '' or (etag and matches(etag, if_match)))
end

local function put(id, if_absent, if_match, kept_until_ms, record)
  local at = 0
  if allowed(id, if_absent, if_match) then
    at = next_fence(id)
    call('ZADD', 'fences', format('%.0f', at), id)
    has_fences = true
    call('DEL', 'l:' .. id)
    store(id, struct.pack('>I8', at + 1) .. sub(record, 9), kept_until_ms)
  end
  return at
end

for i = 4, #ARGV, 5 do
  replies[#replies + 1] = attempt(put, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
trim()
return outcome(replies)
