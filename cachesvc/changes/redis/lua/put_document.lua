-- Puts a version of the topology document in place of the one that its writer has seen.
-- ARGV: 1 hash of the version that is expected (empty: there is none), 2 number of the new one, 3 its
-- record (JSON), 4 its text, 5 the versions that are kept.
-- Answers 1 and the new record, or 0 and the record that stands there (empty: none).
--   topology:records    list of records, the newest first
--   topology:documents  hash: number → text
local expected, number, record, document, kept = unpack(ARGV)
local newest = call('LINDEX', 'topology:records', 0)
if (newest and cjson.decode(newest).hash or '') ~= expected then
  return {0, newest or ''}
end
if newest and tonumber(number) <= cjson.decode(newest).number then
  return {0, newest}
end
call('HSET', 'topology:documents', number, document)
call('LPUSH', 'topology:records', record)
for _, old in ipairs(call('LRANGE', 'topology:records', kept, -1)) do
  call('HDEL', 'topology:documents', whole(cjson.decode(old).number))
end
call('LTRIM', 'topology:records', 0, kept - 1)
return {1, record}
