-- What the scripts share that write records, fences and leases; it follows the prelude. The script that
-- reads does without: whatever stands here is made anew for each call.

-- Returns what `work` answers for one item of a batch. If a command is refused, returns a list with
-- the reason: the server cannot write (MISCONF, NOREPLICAS, OOM), or the item's own data is damaged.
-- So a refusal is the answer to that item alone, and its neighbours get theirs.
local function attempt(work, ...)
  local done, answer = pcall(work, ...)
  if done then
    return answer
  end
  return refused(type(answer) == 'table' and answer.err or tostring(answer))
end

-- Returns the next fence on a key: later than every lease that this clock can have granted, and
-- later than the fence before it, even if the clock stands still.
local function next_fence(id)
  return math.max(now + skew, key_fence(id) + 1)
end

local function store(id, record, kept_until_ms)
  -- A copy is kept no longer than fences are, or a fence could be trimmed before the copy that it
  -- refuses is gone.
  local until_ms = math.min(tonumber(kept_until_ms), now / 1000 + retention_ms)
  call('SET', 'v:' .. id, record, 'PXAT', format('%.0f', math.max(math.floor(until_ms), 1)))
end

-- Keeps a fence in one of the zsets. The first one ends the note that there are none. ZADD comes first:
-- a server without memory left refuses it only as the first write of a script.
local function add_fence(zset, at, id)
  call('ZADD', zset, format('%.0f', at), id)
  if zset == 'fences' and not has_fences then
    call('HDEL', 'meta', 'no_fences')
    has_fences = true
  elseif zset == 'soft' and not has_soft then
    call('HDEL', 'meta', 'no_soft')
    has_soft = true
  end
end
