-- Takes what is parked, of each cell that was not tried for a time, the earliest first.
-- ARGV: 1 that time in µs, 2 how many targets of each cell, 3 µs after which no copy can be left that
-- a target concerns.
-- Answers [cell, name, text] of each; the cells count as tried now. A try that is ahead of the clock
-- was before the clock was set back: that cell is due, too.
local found, most, oldest = {}, tonumber(ARGV[2]), now - ARGV[3]
for _, cell in ipairs(call('HKEYS', 'parked:cells')) do
  local tried, bytes, newest = about_cell(cell)
  if now - tried >= tonumber(ARGV[1]) or tried > now then
    local names = call('ZRANGE', 'parked:order:' .. cell, 0, most - 1)
    local outlived, left = {}, {}
    for _, name in ipairs(names) do
      local text = call('HGET', 'parked:at:' .. cell, name)
      local at = tonumber(match(text or '', '^(%d+) %d+$') or 0) -- 0: none, or nobody here wrote it
      if at < oldest or not match(name, '^[kKtTnN].') and name ~= '*' then
        outlived[#outlived + 1] = name
      else
        left[#left + 1] = { cell, name, text }
      end
    end
    unpark(cell, outlived)
    if call('EXISTS', 'parked:at:' .. cell) == 1 then
      _, bytes, newest = about_cell(cell)
      -- A cell of which all that was looked at had outlived itself is due at once.
      note_cell(cell, #left > 0 and now or 0, bytes, newest)
    end
    for _, one in ipairs(left) do
      found[#found + 1] = one
    end
  end
end
return found
