-- Makes the stream `changes` and its consumer group. ARGV: 1 candidate for the epoch of `changes`.
make_group(ARGV[1])
