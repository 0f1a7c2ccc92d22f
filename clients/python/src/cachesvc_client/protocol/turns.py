"""How long a shared request waits for its slowest key.

One answer comes for the whole batch, so a batch of several keys is given a first turn only. The keys that are not there by then
(their loads go on in the service) are asked for again among themselves, turn after turn, until their callers' deadlines; all
others have been answered. A key that is asked for alone holds up nobody, and has all the time that its caller has.

To the service each turn is a read of its own, which no load may answer that began before the key's newest fence. A key that is
invalidated more often than it can be loaded would not be answered in turns at all, where a read that stays takes two loads at
most. So who has waited for a part of its time asks alone, and stays.

Waiting for another holder's lease goes in turns for the same reason (lookaside.py).
"""

import math
from typing import TypeGuard

from cachesvc_client.errors import CacheError

FIRST_TURN = 0.02
"""Seconds that a slow key may cost the others of its batch: many times what an answer from a cache takes."""
SLOW_TURN = 0.1
"""Of the slow keys among themselves: what one that is there by now waits for one that is not."""
TURNS_SHARE = 0.2
"""Of a caller's time: what it spends in turns, before it asks alone."""
MOST_ALONE = 32
"""Keys that are asked for alone at once, at one instance: each holds a connection. The others go on in turns."""
WAIT_TURN = 0.25
"""Of one wait for another holder's fill; the most that it delays the other waiting keys of its request."""
SHORT_TURN = 0.05
"""A turn that ended sooner than this without a value is filled up to it, or many waiters would ask without pause."""


def first_turn(keys: int, time_left: float) -> float:
    """Never all of the time, or there would be none to ask again in."""
    return math.inf if keys == 1 else min(FIRST_TURN, time_left / 2)


def is_late(answer: object) -> TypeGuard[CacheError]:
    """It was not there at the end of its turn, and will be later."""
    return isinstance(answer, CacheError) and answer.type == "deadline"
