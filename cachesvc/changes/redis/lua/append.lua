-- Accepts a change. ARGV: 1 the event, 2 the number of changes that may be open.
-- Answers the id, or nothing when the stream is full: trimming it would skip changes that were
-- promised.
if call('XLEN', 'changes') + call('HLEN', 'changes:parked') >= tonumber(ARGV[2]) then
  return false
end
return call('XADD', 'changes', '*', 'event', ARGV[1])
