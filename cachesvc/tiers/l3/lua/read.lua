-- Reads records and grants leases.
-- ARGV: 4 nonce of this batch; then per key: id, spec (flags: 1 lease, 2 refresh; not_before in µs;
-- life of a lease in ms).
-- Answers broken_at, now, then per key one of
--   record                  a hit, no lease granted
--   flags                   a miss, no lease granted; flags: 1 held, 2 fenced, 4 soft
--   {flags, record, token}  every other case; record and token may be empty
--   {reason}                the server refused to read it, or to grant a lease that is needed
--   -1                      not looked at: the answer has a mebibyte already, ask again
-- A server that cannot write (MISCONF, NOREPLICAS, OOM) still answers its hits; only keys that need
-- a lease are refused. The bound on bytes is for the neighbours of large values: one answer of 20
-- MiB would take longer than the time limit, and none of its keys would be answered.
local nonce = ARGV[4]
local replies, count = { tonumber(meta[2]), now }, 2
local spec, wants, not_before, life_ms
trim(64)

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

local function grant(id, index)
  local token = nonce .. '-' .. index .. ':' .. format('%.0f', next_as_of(id))
  return call('SET', 'l:' .. id, token, 'NX', 'PX', life_ms) and token
end

local ENOUGH_BYTES = 1048576
local bytes = 0

local function read(id, index)
  local record = call('GET', 'v:' .. id)
  local flags, fresh = 0, false
  if record then
    local as_of, fresh_until, soft_at, _, tag_bytes = struct.unpack(HEAD, record)
    -- A record from the future was filled before the clock was set back: in time it would look younger
    -- than fences that come now.
    if as_of <= not_before or as_of > now + 3 * skew or (has_fences and as_of <= newest('fences', id, record, tag_bytes)) then
      record, flags = false, 2
    elseif as_of <= soft_at or (has_soft and as_of <= newest('soft', id, record, tag_bytes)) then
      flags = 4
    else
      fresh = now < fresh_until
    end
  end

  local token = ''
  if wants >= 2 or (wants == 1 and not fresh) then
    token = grant(id, index)
    if not token then
      token, flags = '', flags + 1
    end
  end

  bytes = bytes + (record and #record or 0)
  if record and flags == 0 and token == '' then
    return record
  elseif not record and token == '' then
    return flags
  end
  return { flags, record or '', token }
end

for i = 5, #ARGV, 2 do
  if ARGV[i + 1] ~= spec then
    spec = ARGV[i + 1]
    wants, not_before, life_ms = struct.unpack('>BI8I4', spec)
  end
  count = count + 1
  replies[count] = bytes < ENOUGH_BYTES and attempt(read, ARGV[i], i) or -1
end
return outcome(replies)
