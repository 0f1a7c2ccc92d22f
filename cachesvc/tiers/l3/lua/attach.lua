-- Attaches an instance that has connected, and makes the cell a new issuer where that is needed.
-- ARGV: 1 S in µs, 2 the id of the instance's placement, 3 the version of its topology.
-- Answers the time in µs; why the cell is a new issuer: `empty`, `server`, `lost`, `placement`,
-- `clock`, or nothing if it goes on; and INFO's sections `server` and `replication`.
-- The script asks INFO itself, so that a connection attaches in its first exchange: a caller that
-- had to send the run id would need one exchange more. A server that is no master, or does not say
-- which one it is, is left as it is: the caller refuses it.
-- A new issuer begins in four cases:
-- - The state here was written under another server, or is gone (empty, flushed): earlier fences,
--   leases and copies may have been lost. The replication id is another one, too, if the server was a
--   replica in between: then it may have taken over the older data of the other one, with a meta
--   record that is the server's own.
-- - A zset or a field of the meta record is lost or replaced (the markers differ; prelude.lua).
-- - The instance's topology is newer than any seen here, and may have given this cell partitions
--   that had another home. That home issued fences and leases that this cell knows nothing of, and
--   copies that this cell kept of these partitions from an earlier time may be outdated.
-- - The clock was set back since the last one began: its time is more than S ahead. What was issued
--   by the former clock may look younger than what comes now.
-- An older topology changes nothing: instances that still have it work on beside those with the new
-- one.

local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')

local function said(field)
  return string.match(info, '\n' .. field .. ':([^\r\n]*)')
end

local time = redis.call('TIME')
local now, skew = time[1] * 1000000 + time[2], tonumber(ARGV[1])
if not said('run_id') or (said('role') or 'master') ~= 'master' then
  return { now, '', info }
end
local me = said('run_id') .. ' ' .. (said('master_replid') or '')

-- The meta record and the markers are small, so they are written to a full server too: only the
-- first write of a script is refused for want of memory, and this one needs none. Without them, a
-- cell that was restarted while full of old fences could never be attached to, and never trimmed.
redis.call('HDEL', 'meta', 'trimmed') -- a field of earlier releases

local meta = redis.call('HMGET', 'meta', 'run_id', 'placement', 'version', 'broken_at', 'issues_from', 'marker')
local version, seen = tonumber(ARGV[3]), tonumber(meta[3] or 0)

-- A version that this cell never saw may have moved partitions away, and the next version may have
-- moved them back, so that the placement looks unchanged.
local given = version > seen and (meta[2] ~= ARGV[2] or version > seen + 1)

local function is_whole(zset)
  return redis.call('ZRANGE', zset, 0, 0)[1] == zset .. ' ' .. meta[6]
end

local function note_if_empty(zset)
  local note = 'no_' .. zset
  if redis.call('ZCARD', zset) == 1 then
    redis.call('HSET', 'meta', note, '1')
  else
    redis.call('HDEL', 'meta', note)
  end
end

if version > seen then
  redis.call('HSET', 'meta', 'placement', ARGV[2], 'version', ARGV[3])
end
local why = ''
if not meta[1] then
  why = 'empty'
elseif meta[1] ~= me then
  why = 'server'
elseif not (meta[4] and meta[5] and meta[6] and is_whole('fences') and is_whole('soft')) then
  why = 'lost'
elseif given then
  why = 'placement'
elseif tonumber(meta[5]) > now + skew then
  why = 'clock'
end
if why ~= '' then
  local marker = string.format('%.0f', now)
  redis.call('HSET', 'meta', 'run_id', me, 'marker', marker,
    'broken_at', string.format('%.0f', now + 2 * skew + 1000),
    'issues_from', string.format('%.0f', now + skew))
  for _, zset in ipairs({ 'fences', 'soft' }) do
    redis.call('ZREMRANGEBYSCORE', zset, '-inf', '-inf')
    redis.call('ZADD', zset, '-inf', zset .. ' ' .. marker)
    note_if_empty(zset)
  end
end
return { now, why, info }
