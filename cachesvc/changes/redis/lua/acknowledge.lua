-- Closes changes. ARGV: their ids. The receipt of a change that was parked says then that it is
-- done.
for _, id in ipairs(ARGV) do
  local receipt = close(id) and call('HGET', receipts_of(id), id)
  if receipt then
    keep_receipt(id, 'd' .. receipt:sub(2))
  end
end
