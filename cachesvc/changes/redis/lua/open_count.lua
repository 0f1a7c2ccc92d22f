-- Counts what is not closed. Answers the changes in the stream, the targets that are parked (once per
-- cell), the dead letters, the cells for which more was parked than is kept, the paced fences that are
-- kept, and those for which there was no room.
local parked, overflowed = 0, 0
for _, cell in ipairs(call('HKEYS', 'parked:cells')) do
  parked = parked + call('ZCARD', 'parked:order:' .. cell)
  overflowed = overflowed + call('HEXISTS', 'parked:at:' .. cell, '*')
end
return {
  call('XLEN', 'changes'), parked, call('XLEN', 'changes:dead'), overflowed,
  call('ZCARD', 'fences:paced'), tonumber(call('GET', 'fences:given_up') or 0),
}
