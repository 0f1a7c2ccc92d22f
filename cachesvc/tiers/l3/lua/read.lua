-- Reads records and grants leases.
-- ARGV: 4 nonce of this batch; then per key: id, spec (flags: 1 lease, 2 refresh; not_before in µs;
-- life of a lease in ms).
-- Answers broken_at, now, then per key one of
--   record                  a hit, no lease granted
--   flags                   a miss, no lease granted; flags: 1 held, 2 fenced, 4 soft
--   {flags, record, token}  every other case; record and token may be empty
--   {reason}                the server refused to read it, or to grant a lease that is needed
--   -bytes                  not looked at, as the answer has a mebibyte already: ask again; the
--                           bytes of its record
-- A server that cannot write (MISCONF, NOREPLICAS, OOM) still answers its hits; only keys that need
-- a lease are refused. The bound on bytes is for the neighbours of large values: one answer of 20
-- MiB would take longer than the time limit, and none of its keys would be answered.
local nonce = ARGV[4]
local replies, count = { tonumber(meta[2]), now }, 2
local spec, wants, not_before, life_ms

-- Returns the as_of of the next lease: later than the key's fence, and later than that of the lease
-- before, even while the fence is ahead of the clock. Of two loads the later one must look younger,
-- or a reader that has seen the later one could be answered with the earlier one. The as_of stays
-- below now + S, the earliest time of the next fence.
-- It is later only if the key's fence is: a put that waits has moved it up. Every fence reaches
-- now + S + 1 ms; behind a later one, what is loaded is not stored.
local function next_as_of(id)
  local fence = key_fence(id)
  local later = math.max(now, fence + 1, math.floor((now + skew + fence) / 2) + 1)
  return math.min(later, now + skew + 1000)
end

-- Returns the token of a granted lease, false if another one is in force, or a list with the reason
-- of the server's refusal. The first grant trims first: it is the first write of this script.
local is_trimmed = false
local function grant(id, index)
  if not is_trimmed then
    is_trimmed = true
    trim(64)
  end
  local token = nonce .. '-' .. index .. ':' .. format('%.0f', next_as_of(id))
  local answer = try('SET', 'l:' .. id, token, 'NX', 'PX', life_ms)
  return answer and (answer.err and refused(answer.err) or token)
end

-- A record from the future was filled before the clock was set back: in time it would look younger
-- than fences that come now.
local latest = now + 3 * skew
local ENOUGH_BYTES, SMALL_BYTES = 1048576, 16384
local bytes, bytes_behind = 0, 0
local unpacked = struct.unpack

local function read(id, index)
  local record = try('GET', 'v:' .. id)
  local flags = 0
  if record then
    if type(record) == 'table' then
      return refused(record.err)
    elseif #record < HEAD_BYTES then
      return refused('its record is cut short')
    end
    local as_of, fresh_until, soft_at, _, tag_bytes = unpacked(HEAD, record)
    if as_of <= not_before or as_of > latest or (has_fences and as_of <= newest('fences', id, record, tag_bytes)) then
      record, flags = false, 2
    else
      bytes = bytes + #record
      if as_of <= soft_at or (has_soft and as_of <= newest('soft', id, record, tag_bytes)) then
        flags = 4
      elseif wants == 0 or (wants == 1 and now < fresh_until) then
        return record
      end
    end
  end

  local token = ''
  if wants ~= 0 then
    token = grant(id, index)
    if type(token) == 'table' then
      return token
    elseif not token then
      token, flags = '', flags + 1
    end
  end

  if token ~= '' or (record and flags ~= 0) then
    return { flags, record or '', token }
  end
  return record or flags
end

-- Returns the bytes of a record that the answer has no room for, or nothing.
local function size_without_room(id)
  local size = try('STRLEN', 'v:' .. id)
  if type(size) ~= 'number' or size == 0 then
    return nil
  elseif size <= SMALL_BYTES and bytes_behind < ENOUGH_BYTES then
    bytes_behind = bytes_behind + size
    return nil
  end
  return size
end

for i = 5, #ARGV, 2 do
  if ARGV[i + 1] ~= spec then
    spec = ARGV[i + 1]
    wants, not_before, life_ms = unpacked('>BI8I4', spec)
  end
  count = count + 1
  local size = bytes >= ENOUGH_BYTES and size_without_room(ARGV[i])
  replies[count] = size and -size or read(ARGV[i], i)
end
return outcome(replies)
