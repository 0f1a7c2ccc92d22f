-- ARGV: 1 position, 2 how many items. Answers the epoch and the items from the position on, the one at the position (if it is
-- still there) included: that it is there is what shows that none in between was lost.
return { epoch(), call('XRANGE', 'fences', ARGV[1], '+', 'COUNT', ARGV[2]) }
