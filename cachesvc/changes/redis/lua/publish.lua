-- Publishes items of `fences`, closes the changes that they complete, and parks what cells missed.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 JSON that goes with the items: [paced
-- fences, changes that are done], 4 number of items; per item: number of its arguments, the
-- arguments.
--   a paced fence: [member, µs until which it is in force]
--   a change:      [id, its home cells, its audit item, what is to be parked of it (prelude.lua) and
--                  for which cells, whether items here are its fences, whether it stays open,
--                  whether it comes from a journal: then it need not be in the stream]
-- Answers the epoch and the id of the last item.
local MOST_PACED = 100000 -- as many as an instance keeps windows
local paced, dones = unpack(cjson.decode(ARGV[3]))

-- Remembers paced fences, each given as [member, µs until which it is in force].
-- Beyond the bound, those that end first become one that concerns every namespace: the copies up to
-- the newest `at` of them are stale at once, to those who are told of it. These are followers that
-- begin, or had a gap. All others have merged the items.
local function remember_paced(fences)
  for _, fence in ipairs(fences) do
    call('ZADD', 'fences:paced', whole(fence[2]), fence[1])
  end
  local surplus = call('ZCARD', 'fences:paced') - MOST_PACED
  if surplus <= 0 then
    return
  end
  local given_up, at, last = call('ZPOPMIN', 'fences:paced', surplus + 1), 0, 0
  for i = 1, #given_up, 2 do
    at = math.max(at, tonumber(match(given_up[i], '^%[%d+,(%d+),') or now))
    last = math.max(last, tonumber(given_up[i + 1]))
  end
  call('ZADD', 'fences:paced', 'GT', whole(last), '[0,' .. whole(at) .. ',true,"*",1]')
  call('INCRBY', 'fences:given_up', surplus)
end

trim(tonumber(ARGV[2]))

local position = publish_all(ARGV[1], 4)

remember_paced(paced)

for _, done in ipairs(dones) do
  local id, cells, audit, parked, missed, is_published, stays_open, is_from_journal = unpack(done)
  local was = call('HGET', receipts_of(id), id)
  local settled
  if stays_open then
    settled = fields_of(id)
  else
    settled = close(id) or is_from_journal and not was
  end
  -- A change that another caller settled meanwhile keeps the receipt of that time: nothing of it is
  -- missing that this caller could park. Its audit item was written then, too.
  if settled or not was then
    local number = settled and park(parked)
    local position_line = is_published and position ~= '' and position or match(was or '', '^.([^\n]*)') or ''
    local is_parked = settled and #parked > 0
    keep_receipt(id, (is_parked and 'p' or 'd') .. position_line .. '\n' .. cells .. '\n' .. missed .. '\n'
      .. (is_parked and number or ''))
  end
  if audit[1] and not was then
    call('XADD', 'audit', 'MAXLEN', '~', AUDIT_ITEMS, '*', 'receipt', id, unpack(audit))
  end
end
return { epoch_of('fences'), position }
