-- Stands before every script of a queue. A region's queue is one server and keeps:
--   changes        stream, one consumer group `cachesvc`; an item has the field `event` (a CloudEvent)
--   changes:dead   stream of those that could not be read, with their reason
--   fences         stream; fence_items.py has the fields
--   fences:epoch   random, made with the stream. With the server's run id it is the epoch: another one means that items may be lost
local call, match, format = redis.call, string.match, string.format

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function epoch()
  return (call('GET', 'fences:epoch') or '') .. ':' .. match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- Append to `fences`, made with its epoch if it is not there; items older than the retention (ms) go.
local function publish(candidate, retention_ms, fields)
  call('SET', 'fences:epoch', candidate, 'NX')
  local oldest = format('%.0f', math.max(now / 1000 - retention_ms, 0))
  return call('XADD', 'fences', 'MINID', '~', oldest, '*', unpack(fields))
end
