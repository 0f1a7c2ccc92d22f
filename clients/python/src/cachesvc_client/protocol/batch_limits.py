MAX_ITEMS = 256


MIN_OWN = 16
"""Items of one caller that are worth a request of their own; fewer share one with what else is asked at the time."""


MAX_WEIGHT = 512 * 1024
"""Bytes of values in one batch of writes; a larger value departs alone."""


MAX_WAITING = 100_000
"""Items unanswered in one batcher; more are refused at once."""


MAX_DELAY = 0.002
"""Seconds a batch waits for a free lane."""


MAX_SLOW_DELAY = 0.02
"""The same for slow keys, whose batches take fifty times as long: more of them at once would use up the connections."""
