-- Removes consumers from the group that have left: they have taken nothing that is open, and asked for
-- nothing for a time. ARGV: 1 that time in µs. Answers the number of consumers that are removed.
-- The look and the removal are one step: a consumer that took a change in between would be removed
-- with it. One with something taken stays until others have adopted that. The consumers that are
-- named as epochs stay: a group without the one of its epoch counts as a new group (make_group).
local removed = 0
for _, consumer in ipairs(redis.pcall('XINFO', 'CONSUMERS', 'changes', 'cachesvc')) do -- none: no group
  local fields = {}
  for i = 1, #consumer, 2 do
    fields[consumer[i]] = consumer[i + 1]
  end
  local is_mark = string.sub(fields['name'], 1, 6) == 'epoch '
  if not is_mark and fields['pending'] == 0 and fields['idle'] * 1000 >= tonumber(ARGV[1]) then
    call('XGROUP', 'DELCONSUMER', 'changes', 'cachesvc', fields['name'])
    removed = removed + 1
  end
end
return removed
