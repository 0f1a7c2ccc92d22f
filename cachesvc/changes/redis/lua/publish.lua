-- Publishes items of `fences`, and closes or parks the changes that they complete.
-- ARGV: 1 candidate for the epoch, 2 retention in ms, 3 JSON that goes with the items: [paced
-- fences, changes that are done], 4 number of items; per item: number of its arguments, the
-- arguments.
--   a paced fence: [member, µs until which it is in force]
--   a change:      [id, whether it is parked, its receipt's lines of cells, its audit item, where it
--                  is missing (receipt_lines.py) if it is parked, whether items here are its fences]
-- Answers the epoch and the id of the last item.
local paced, dones = unpack(cjson.decode(ARGV[3]))

trim(tonumber(ARGV[2]))

local position = publish_all(ARGV[1], 4)

for _, fence in ipairs(paced) do
  call('ZADD', 'fences:paced', whole(fence[2]), fence[1])
end

-- Parks a change: out of the stream, so that `complete_to` can pass it, and kept with its fields,
-- to be tried again later.
local function park(id, missing)
  local fields = fields_of(id)
  if fields then
    close(id)
    call('HSET', 'changes:parked', id, cmsgpack.pack(fields))
    if missing ~= '' then
      call('HSET', 'changes:missing', id, missing)
    end
    call('ZADD', 'changes:tried', whole(now), id)
  end
  return fields
end

for _, done in ipairs(dones) do
  local id, is_parked, cells, audit, missing, is_published = unpack(done)
  local was = call('HGET', receipts_of(id), id)
  local settled = is_parked and park(id, missing) or not is_parked and close(id)
  -- A change that another caller settled meanwhile keeps the receipt of that time. Its audit item
  -- was written then, too; that of a parked change was written when it was parked.
  if settled or not was then
    local where = is_published and position ~= '' and position or match(was or '', '^.([^\n]*)') or ''
    keep_receipt(id, (is_parked and settled and 'p' or 'd') .. where .. '\n' .. cells)
  end
  if audit[1] and not was then
    call('XADD', 'audit', 'MAXLEN', '~', AUDIT_ITEMS, '*', 'receipt', id, unpack(audit))
  end
end
return { epoch_of('fences'), position }
