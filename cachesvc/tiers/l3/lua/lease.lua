-- Prolongs leases or gives them back. Answers 1 for a lease that is in force, else 0.
-- ARGV per lease: id, token, new life in ms (0 gives the lease back). A lease is never re-created.
local replies = {}
for i = 4, #ARGV, 3 do
  local lease = 'l:' .. ARGV[i]
  local in_force = call('GET', lease) == ARGV[i + 1]
  if in_force then
    call('PEXPIRE', lease, ARGV[i + 2])
  end
  replies[#replies + 1] = in_force and 1 or 0
end
return replies
