-- Per lease: id, token, its new life in ms (0: give it back). Answers 1 if it is in force, else 0. Never re-creates one.
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
