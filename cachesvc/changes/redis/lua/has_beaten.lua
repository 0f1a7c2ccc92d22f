-- Says whether a heartbeat is recent. ARGV: 1 the µs for which it is.
return has_beaten(ARGV[1]) and 1 or 0
