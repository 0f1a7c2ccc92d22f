-- A client connected. ARGV: 1 the server's run id, 2 S in µs, 3 its placement's id, 4 its topology's version. A new issuer begins if
--   the state here was written under another server, or is gone (empty, flushed): what came before may have been lost; or
--   its topology is newer than any seen here and may have given this cell partitions that had another home: that home issued
--   fences and leases that this cell knows nothing of, and what it kept of them from an earlier time may be outdated.
-- An older topology changes nothing: instances that have it still go on working beside those with the new one.
local meta = redis.call('HMGET', 'meta', 'run_id', 'placement', 'version')
local version, seen = tonumber(ARGV[4]), tonumber(meta[3] or 0)

-- A version left out may have moved partitions away; the next one moved them back, and its placement looks unchanged.
local given = version > seen and (meta[2] ~= ARGV[3] or version > seen + 1)

if version > seen then
  redis.call('HSET', 'meta', 'placement', ARGV[3], 'version', ARGV[4])
end
if meta[1] ~= ARGV[1] or given then
  local time = redis.call('TIME')
  local now, skew = time[1] * 1000000 + time[2], tonumber(ARGV[2])
  redis.call('HSET', 'meta', 'run_id', ARGV[1],
    'broken_at', string.format('%.0f', now + 2 * skew + 1000),
    'issues_from', string.format('%.0f', now + skew))
end
return 1
