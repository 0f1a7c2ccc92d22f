-- Gives changes that nobody is to be given any more to a consumer, which reclaims them then.
-- ARGV: 1 the consumer, 2 least age in µs, 3 how many changes are looked at, 4 the most bytes of a
-- change. A larger one is moved to the dead letters without its fields: nobody could read it, and the
-- changes that are read together with it.
-- A change that was delivered and is in the stream is pending, unless a consumer was deleted with
-- what it had taken (XGROUP DELCONSUMER), the group was set past it (XGROUP SETID, or a group made
-- anew), or somebody else acknowledged it. Answers the number of changes that are adopted.
local delivered = last_delivered()
if not delivered then
  return 0
end

local TOO_LARGE = 'the event is too large to be read'
local there = call('XRANGE', 'changes', '-', delivered, 'COUNT', ARGV[3])
if #there == 0 then
  return 0
end
local pending = {}
for _, one in ipairs(call('XPENDING', 'changes', 'cachesvc', '-', there[#there][1], ARGV[3])) do
  pending[one[1]] = true
end
local adopted = 0

local function is_too_large(fields)
  local size = 0
  for _, part in ipairs(fields) do
    size = size + #part
  end
  return size > tonumber(ARGV[4])
end

for _, item in ipairs(there) do
  local age = now - tonumber(match(item[1], '^%d+')) * 1000
  if is_too_large(item[2]) then
    close(item[1])
    call('XADD', 'changes:dead', 'MAXLEN', '~', DEAD_ITEMS, '*', 'id', item[1], 'reason', TOO_LARGE)
    keep_receipt(item[1], 'b\n\n\n' .. TOO_LARGE)
  elseif not pending[item[1]] and (age < 0 or age >= tonumber(ARGV[2])) then
    call('XCLAIM', 'changes', 'cachesvc', ARGV[1], 0, item[1], 'IDLE', ARGV[2] / 1000, 'FORCE', 'JUSTID')
    adopted = adopted + 1
  end
end
return adopted
