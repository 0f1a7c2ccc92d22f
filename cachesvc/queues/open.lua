-- ARGV: 1 candidate for the epoch, 2 retention in ms. Answers the epoch and the id of the oldest retained item; in an empty stream
-- of one appended for this (`o`), so that whatever is lost from now on leaves a reader without the item at its position.
if call('XLEN', 'fences') == 0 then
  publish(ARGV[1], tonumber(ARGV[2]), { 'o', '1' })
end
return { epoch(), call('XRANGE', 'fences', '-', '+', 'COUNT', 1)[1][1] }
