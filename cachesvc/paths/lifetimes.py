"""Turns lifetimes into moments: from "how long" to "until when", with jitter.

A lifetime is the one that a writer or an origin asked for, else the namespace's.
"""

import random

from cachesvc.config.topology import Namespace
from cachesvc.model.footprint import shared_window


def lifetimes(
    namespace: Namespace,
    *,
    negative: bool,
    ttl_us: int | None,
    stale_for_us: int | None,
    error_for_us: int | None,
    now: int,
    rng: random.Random,
) -> tuple[int, int, int]:
    """`fresh_until`, `stale_for` and `error_for` of an entry made now, µs.

    A lifetime of None is the namespace's. TTLs are only ever shortened, by a random share of up to
    `jitter`, so that entries filled together do not end together. "Known absent" is never served
    stale.
    """
    ttl = ttl_us if ttl_us is not None else namespace.negative_ttl if negative else namespace.ttl
    fresh_until = now + int(ttl * (1 - namespace.jitter * rng.random()))
    if negative:
        return fresh_until, 0, 0
    return (
        fresh_until,
        shared_window(int(namespace.stale_while_revalidate) if stale_for_us is None else stale_for_us),
        shared_window(int(namespace.stale_if_error) if error_for_us is None else error_for_us),
    )
