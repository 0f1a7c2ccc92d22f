-- The beginning of every script of a cell that reads or changes keys (attach, inspect and claim
-- stand alone).
--
-- ARGV of these scripts: 1 run id and replication id that the caller's connection saw, 2 S in µs,
-- 3 retention in ms; items follow, and 5 is the id of the first one.
-- Answers: a list, or
--   0 = attach first (the meta record or a zset is lost, another server wrote them, or the record is
--       from the future)
--   1 = a new issuer waits
-- or the error READONLY, also if nothing had to be written: the server is a replica (`outcome`).
--
-- A cell keeps:
--   v:<key id>   the record: header, tag ids, lease token, envelope (record.py has the layout);
--                expires with the entry
--   l:<key id>   the lease in force: its token `nonce:as_of`; expires with the lease
--   fences       zset: key, tag and namespace ids → the newest fence `at` in µs (below 2^53, so a
--                double is exact)
--   soft         zset: tag and namespace ids → the newest soft fence; the soft fence on a key
--                stands in the key's record
--   meta         run_id (with the replication id), placement, version (of the newest topology that
--                attached), broken_at, issues_from, marker, puts_until (the latest fence that a put
--                has waited for), no_fences and no_soft ('1' until the first member beside the marker)
-- One member of each zset is a marker, with the score -inf: the zset's name and what stands in
-- meta. If meta or a zset was deleted, renamed or replaced, the two differ, and the cell is a new
-- issuer. Losing any other key loses copies or leases, and no fence: that is a miss.
--   queues:<region>  hash: instance → µs, and the queue that it uses for the region (claim.lua)
-- Neither zset has a TTL: `volatile-*` eviction takes copies and leases, never a fence.
--
-- Invariant: the as_of of a record is later than the hard fence on its key. A script that moves
-- that fence drops or replaces the record in the same step, and fills are checked against the
-- fence. So a read need not look up the key's fence. A soft fence on the key is written into the
-- record instead.
--
-- Redis key names are made in the scripts and not declared in KEYS: a cell is one server, never a
-- Redis Cluster, and sending ids alone halves the request.
-- Times are written with format('%.0f'): Lua's own conversion keeps only 14 digits.

local call, try, format, match, sub = redis.call, redis.pcall, string.format, string.match, string.sub

local meta = call('HMGET', 'meta', 'run_id', 'broken_at', 'issues_from', 'marker', 'no_fences', 'no_soft')
if meta[1] ~= ARGV[1] or not (meta[2] and meta[3] and meta[4]) then
  return 0
end
-- The marker is asked for together with the fence that most batches need: ZRANGE costs twice as much.
local first_namespace = match(ARGV[5], '^[^/]*')
local fences = call('ZMSCORE', 'fences', 'fences ' .. meta[4], first_namespace)
local soft = call('ZMSCORE', 'soft', 'soft ' .. meta[4], first_namespace)
if not (fences[1] and soft[1]) then
  return 0
end
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local skew, retention_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
if tonumber(meta[3]) > now + skew then
  return 0 -- the clock was set back since: a wait until then could last for hours
end
if now < tonumber(meta[3]) then
  return 1
end
-- as_of, fresh_until, soft_at, negative, bytes of tags, bytes of token; then the ETag
local HEAD, HEAD_BYTES = '>I8I8I8BI4B', 46
local has_fences, has_soft = not meta[5], not meta[6]
local namespaces = {}

-- Returns the newest fence in this zset on tags, given as in a record. Raises if these are damaged.
local function newest_on_tags(zset, packed)
  local at = 0
  for _, score in ipairs(call('ZMSCORE', zset, unpack(cmsgpack.unpack(packed)))) do
    at = math.max(at, tonumber(score or 0))
  end
  return at
end

-- Returns the newest fence in this zset on the namespace and the tags of a record. It is later than
-- any record if the tags are damaged.
local function newest(zset, id, record, tag_bytes)
  local namespace = match(id, '^[^/]*')
  local at = namespaces[zset .. namespace]
  if not at then
    if namespace == first_namespace then
      at = (zset == 'soft' and soft or fences)[2]
    else
      at = call('ZSCORE', zset, namespace)
    end
    at = tonumber(at or 0)
    namespaces[zset .. namespace] = at
  end
  if tag_bytes > 0 then
    local done, on_tags = pcall(newest_on_tags, zset, sub(record, HEAD_BYTES + 1, HEAD_BYTES + tag_bytes))
    at = math.max(at, done and on_tags or math.huge)
  end
  return at
end

local function key_fence(id)
  return has_fences and tonumber(call('ZSCORE', 'fences', id) or 0) or 0
end

-- Returns the answer to one item that the server refused, with the reason. READONLY concerns the
-- connection, not an item: then it is the answer of the whole script (`outcome`).
local demoted
local function refused(why)
  demoted = demoted or match(why, 'READONLY .*')
  return { why }
end

-- Returns the answer of a script with these replies.
-- A demoted server answers reads for ever, and its connections stay open. So a script that had
-- nothing to write proves that it could: PERSIST of no key changes nothing. It comes last, because a
-- server without memory left refuses only the first write of a script. The flags of a `#!lua` line
-- would refuse hits, too, on a master that cannot write for want of a disk or of replicas.
local function outcome(replies)
  if not demoted then
    local answer = try('PERSIST', '')
    demoted = type(answer) == 'table' and match(answer.err, 'READONLY .*')
  end
  return demoted and redis.error_reply(demoted) or replies
end

-- Drops the oldest of the fences that are too old, `most` of each kind. A fence is kept a minute
-- longer than any copy: the as_of of a fill is at most a minute older than the fill.
-- A script that may need memory trims before its first write. A server without memory left refuses
-- the first write of a script if that write may need memory, and no later one: so a cell that is
-- full of old fences takes writes again, and one that is full of fences in force refuses them. A
-- step is small, since a script that drops millions holds up every caller; and it is larger than
-- what its script adds, so that the trim keeps up. A server that cannot write still answers its hits:
-- a drop that it refuses is no failure.
local function trim(most)
  local oldest = now - retention_ms * 1000 - 60000000
  for _, zset in ipairs({ 'fences', 'soft' }) do
    local at = call('ZRANGE', zset, 1, 1, 'WITHSCORES')[2]
    if at and tonumber(at) < oldest then
      local old = call('ZCOUNT', zset, '(-inf', format('(%.0f', oldest))
      try('ZREMRANGEBYRANK', zset, 1, math.min(old, most)) -- 0 is the marker
    end
  end
end
