-- Counts what is not closed. Answers the changes in the stream, the targets that are parked (once per
-- cell), the dead letters, and the cells for which more was parked than is kept.
local parked, overflowed = 0, 0
for _, cell in ipairs(call('HKEYS', 'parked:cells')) do
  parked = parked + call('ZCARD', 'parked:order:' .. cell)
  overflowed = overflowed + call('HEXISTS', 'parked:at:' .. cell, '*')
end
return { call('XLEN', 'changes'), parked, call('XLEN', 'changes:dead'), overflowed }
