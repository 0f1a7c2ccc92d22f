-- Stands before every script of a queue. A region's queue is one server and keeps:
--   changes          stream, one consumer group `cachesvc`; an item has the fields the producer gave it
--   changes:epoch    random, made with the group. With the server's run id it is the epoch: another one means that changes may be lost
--   changes:announced  the epoch whose possible loss has been announced
--   changes:parked   hash: id → fields (cmsgpack) of the changes whose fence is out and that a home cell has not taken
--   changes:tried    sorted set: the same ids by the µs at which they were last tried
--   changes:dead     stream of those that were buried, with their reason
--   fences           stream; fence_items.py has the fields
--   fences:epoch     as that of `changes`, made with the stream `fences`
--   fences:paced     sorted set: paced fences (fence_items.py) by the µs until which they are in force
--   fences:readers   hash: region/instance → position, epoch and µs of its last report
--   receipts:<n>     hash: id → state letter, position, cells, missed cells, reason; a line each. <n>: the id's ms without its last digit,
--                    so that a busy queue keeps a hundred receipts in one compact hash
--   audit            stream: who invalidated what
local call, match, format = redis.call, string.match, string.format

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local RECEIPT_SECONDS, AUDIT_ITEMS, DEAD_ITEMS = 900, 100000, 10000

local function whole(number)
  return format('%.0f', number)
end

local function epoch_of(stream)
  return (call('GET', stream .. ':epoch') or '') .. ':' .. match(call('INFO', 'server'), 'run_id:(%w+)')
end

-- The group starts from the beginning: changes that came before it are its to do. A group that had to be made means that whatever was
-- accepted before is gone, with the stream or with its place in it, so it gets an epoch of its own.
local function make_group(candidate)
  if not redis.pcall('XGROUP', 'CREATE', 'changes', 'cachesvc', '0', 'MKSTREAM').err then
    call('SET', 'changes:epoch', candidate)
  end
end

-- Append to `fences`, made with its epoch if it is not there; items older than the retention (ms) go.
local function publish(candidate, retention_ms, fields)
  call('SET', 'fences:epoch', candidate, 'NX')
  local oldest = whole(math.max(now / 1000 - retention_ms, 0))
  return call('XADD', 'fences', 'MINID', '~', oldest, '*', unpack(fields))
end

local function paced_in_force()
  return call('ZRANGEBYSCORE', 'fences:paced', '(' .. whole(now), '+inf')
end

-- Take a change out, wherever it is. False: it is in neither place.
local function close(id)
  call('XACK', 'changes', 'cachesvc', id)
  if call('XDEL', 'changes', id) == 1 then
    return true
  end
  call('ZREM', 'changes:tried', id)
  return call('HDEL', 'changes:parked', id) == 1
end

-- The fields of a change, wherever it is.
local function fields_of(id)
  local found = call('XRANGE', 'changes', id, id)[1]
  if found then
    return found[2]
  end
  local packed = call('HGET', 'changes:parked', id)
  return packed and cmsgpack.unpack(packed)
end

local function receipts_of(id)
  return 'receipts:' .. match(id, '^(%d-)%d%-')
end

local function keep_receipt(id, receipt)
  call('HSET', receipts_of(id), id, receipt)
  call('EXPIRE', receipts_of(id), RECEIPT_SECONDS)
end
