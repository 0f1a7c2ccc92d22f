-- Notes that the possible loss of an epoch is announced. ARGV: 1 the epoch.
-- A consumer that announced an epoch which has passed meanwhile does not hide the present epoch.
if ARGV[1] == epoch_of('changes') then
  call('SET', 'changes:announced', ARGV[1])
end
