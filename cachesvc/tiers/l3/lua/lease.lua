-- Prolongs leases or gives them back. Answers 1 for a lease that is in force, else 0, or a list with
-- the reason of a refusal.
-- ARGV: 4 nothing; then per lease: id, token, new life in ms (0 gives the lease back). A lease is never re-created.
local replies = {}
local function prolong(id, token, life_ms)
  local in_force = call('GET', 'l:' .. id) == token
  if in_force then
    call('PEXPIRE', 'l:' .. id, life_ms)
  end
  return in_force and 1 or 0
end

for i = 5, #ARGV, 3 do
  replies[#replies + 1] = attempt(prolong, ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
return outcome(replies)
