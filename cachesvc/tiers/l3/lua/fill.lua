-- Stores records under leases. Answers for each: 1 (stored), -1 (a fence is not older than the record),
-- 0 (its lease is not in force), or a list with the reason of a refusal.
-- ARGV: 4 nothing; then per fill: id, lease token, kept_until in ms, record.
-- A fill is idempotent: the record keeps the token that it was filled under, so a retry after a
-- lost reply gets the same answer.
local replies = {}
trim(64)

local function filled_under(id, token)
  local record = call('GET', 'v:' .. id)
  if not record then
    return false
  end
  local _, _, _, _, tag_bytes, token_bytes = struct.unpack(HEAD, record)
  return sub(record, HEAD_BYTES + tag_bytes + 1, HEAD_BYTES + tag_bytes + token_bytes) == token
end

local function fill(id, token, kept_until_ms, record)
  local as_of, _, _, _, tag_bytes = struct.unpack(HEAD, record)
  local in_force = call('GET', 'l:' .. id) == token
  local of_lease = as_of <= tonumber(match(token, ':(%d+)$') or -1)
  -- The entry may be older than its lease (an origin's Age is subtracted), so the key's fence is
  -- checked too.
  local fenced = has_fences and as_of <= math.max(key_fence(id), newest('fences', id, record, tag_bytes))

  local answer = fenced and -1 or 0
  if of_lease and not fenced then
    if in_force then
      store(id, record, kept_until_ms)
      answer = 1
    elseif filled_under(id, token) then
      answer = 1
    end
  end
  if in_force then
    call('DEL', 'l:' .. id)
  end
  return answer
end

for i = 5, #ARGV, 4 do
  replies[#replies + 1] = attempt(fill, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
end
return outcome(replies)
