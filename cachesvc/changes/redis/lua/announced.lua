-- ARGV: 1 the epoch. A consumer that says so of one that has passed meanwhile does not hide the present one.
if ARGV[1] == epoch_of('changes') then
  call('SET', 'changes:announced', ARGV[1])
end
