"""The limits within which the client puts the calls of many callers into one request."""

MAX_ITEMS = 256
"""Items of one batch; a full batch departs at once."""

MIN_OWN = 16
"""A call for so many items gets requests of its own; one for fewer shares batches."""

MAX_WEIGHT = 512 * 1024
"""Bytes of values in one batch of writes; a larger value departs alone."""

MAX_WAITING = 100_000
"""Unanswered items of one batcher; more are refused at once."""

MAX_DELAY = 0.002
"""Seconds that a batch waits for a free lane at most."""

MAX_SLOW_DELAY = 0.02
"""Seconds that a batch of slow keys waits for a free lane at most.

Such batches take fifty times as long: more of them at once would use up the connections.
"""
