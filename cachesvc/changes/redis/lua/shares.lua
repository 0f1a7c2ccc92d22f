-- Hands out shares of limits to one instance of the region (tiers/shares/share.py has the rule).
-- ARGV: 1 candidate for the epoch, 2 the instance, 3 the epoch of the last answer that it had (empty:
-- none), 4 the µs since it asked for that one, 5 the number of instances that the topology names; then
-- for each limit 7: name, whole amount, term in µs (0: the instance leaves), part of the amount for those
-- who are cut off, least that is of use (1: whole numbers only), the most that it may be using, demand.
-- Answers the epoch, then share and floor of each limit as texts.
--   shares:epoch       random; with the server's run id it is the epoch
--   shares:heard       the epoch, and the latest µs at which an instance heard from another server
--   shares:of:<limit>  hash: instance → µs at which its term ends, µs until which its floor is kept back,
--                      the most that it may be using, its floor, its demand
local SILENT_US = 600000000
local candidate, me, heard, age, expected = unpack(ARGV)

-- A write that needs no memory comes first: a server without memory left refuses the first write of a
-- script if that write may need memory, and no later one. The records of shares are few and small.
call('UNLINK', 'shares:nothing')
call('SET', 'shares:epoch', candidate, 'NX')
local epoch = epoch_of('shares')

-- An instance that heard from another server has a share that is not recorded here, and so may others
-- have: until their terms have ended nobody gets more than it uses.
local under, at = match(call('GET', 'shares:heard') or '', '^(%S+) (%d+)$')
local heard_at = under == epoch and tonumber(at) or 0
if heard ~= '' and heard ~= epoch and now - age > heard_at then
  heard_at = now - age
  call('SET', 'shares:heard', epoch .. ' ' .. whole(heard_at))
end

-- Max-min fair: the level up to which every demand is met, and the part of the rest for each.
local function level_of(demands, amount)
  table.sort(demands)
  local left = amount
  for i, demand in ipairs(demands) do
    local each = left / (#demands - i + 1)
    if demand > each then
      return each, 0
    end
    left = left - demand
  end
  return amount, left / #demands
end

local answer = { epoch }
for i = 6, #ARGV, 7 do
  local name, amount, term, floor_share = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  local least, using, demand = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
  local key = 'shares:of:' .. name
  local records, taken, members, demands = call('HGETALL', key), 0, 1, {}
  local live = 1
  for j = 1, #records, 2 do
    local who = records[j]
    local ends, gone, held, floor, wanted = match(records[j + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
    ends, gone = tonumber(ends) or 0, tonumber(gone) or 0
    if gone > now + SILENT_US + 2 * term then -- the clock was set back: its time counts from now on
      ends, gone = now + term, now + term + SILENT_US
      call('HSET', key, who, whole(ends) .. ' ' .. whole(gone) .. ' ' .. held .. ' ' .. floor .. ' ' .. wanted)
    end
    if who ~= me then
      if ends > now then
        taken, members, live = taken + held, members + 1, live + 1
        demands[#demands + 1] = tonumber(wanted)
      elseif gone > now then
        taken, members = taken + floor, members + 1
      else
        call('HDEL', key, who)
      end
    end
  end
  if term == 0 then
    call('HDEL', key, me)
    answer[#answer + 1], answer[#answer + 2] = '0', '0'
  else
    -- Who wants nothing keeps a little, to begin with.
    demand = math.max(demand, least, amount / (10 * live))
    demands[#demands + 1] = demand
    local level, rest = level_of(demands, amount)
    local share, free = math.min(demand, level) + rest, amount - taken
    if least == 1 then
      share, free = math.ceil(share - 0.000001), math.floor(free + 0.000001)
    end
    share = math.max(0, math.min(share, free))
    if now < heard_at + term then
      share = math.min(share, using)
    end
    local floor = tonumber(floor_share)
    floor = floor > 0 and math.max(least, amount * floor / math.max(members, tonumber(expected))) or 0
    local ends = now + term
    call('HSET', key, me, format('%.0f %.0f %.6f %.6f %.6f', ends, floor > 0 and ends + SILENT_US or ends,
      math.max(share, using), floor, demand))
    call('PEXPIRE', key, whole((term + SILENT_US) / 1000))
    answer[#answer + 1], answer[#answer + 2] = format('%.6f', share), format('%.6f', floor)
  end
end
return answer
