-- A client connected to the server with run id ARGV[1]; ARGV[2] is S in µs. If this cell's state was written under another
-- server (or is gone: empty, flushed), what came before may have been lost: a new issuer begins.
if redis.call('HGET', 'meta', 'run_id') ~= ARGV[1] then
  local time = redis.call('TIME')
  local now, skew = time[1] * 1000000 + time[2], tonumber(ARGV[2])
  redis.call('HSET', 'meta', 'run_id', ARGV[1],
    'broken_at', string.format('%.0f', now + 2 * skew + 1000),
    'issues_from', string.format('%.0f', now + skew))
end
return 1
