"""The turns in which a shared request waits for its slowest key.

One answer comes for the whole batch, so a batch of several keys is given a short first turn. At its
end all keys that are there are answered. The late keys, whose loads go on in the service, are asked
for again among themselves, turn after turn, until their callers' deadlines. A key that is asked for
alone holds up nobody, and has all the time that its caller has.

To the service each turn is a read of its own, and a load that began before the key's newest fence
may not answer it. In turns, a key that is invalidated more often than it can be loaded would never
be answered; a read that stays takes two loads at most. So a caller that has spent a part of its
time in turns (`TURNS_SHARE`) asks alone, and stays.

Waits for the fill of another lease holder go in turns for the same reason (`lookaside.py`).
"""

import math
from collections.abc import Sequence
from typing import TypeGuard

from cachesvc_client.errors import CacheError

FIRST_TURN = 0.02
"""Seconds that a slow key may delay the other keys of its batch.

It is many times as long as an answer from a cache takes.
"""
SLOW_TURN = 0.1
"""Seconds that a slow key may delay the other slow keys of its batch."""
TURNS_SHARE = 0.2
"""The share of a caller's time that is spent in turns before the caller asks alone."""
MOST_ALONE = 32
"""Keys that are asked for alone at an instance at the same time; others go on in turns.

Each of them holds a connection.
"""
WAIT_TURN = 0.25
"""Seconds of one wait for another holder's fill.

Such a wait delays the other waiting keys of its request by so much at most.
"""
SHORT_TURN = 0.05
"""Seconds that a turn without a value takes at least.

A turn that ended sooner is followed by a pause, or many waiters would ask without one.
"""


def first_turn(keys: int, time_left: float) -> float:
    """Returns the seconds of the first turn of a batch; infinite for a single key.

    It is half of `time_left` at most, so that time is left to ask again.
    """
    return math.inf if keys == 1 else min(FIRST_TURN, time_left / 2)


def is_late(answer: object) -> TypeGuard[CacheError]:
    """True if the key was late: not there at the end of its turn, and to be asked for again."""
    return isinstance(answer, CacheError) and answer.type == "deadline"


def without_room(answers: Sequence[object]) -> list[int]:
    """Returns the places of the keys that an answer had no room for: they are asked for again."""
    failures = [(place, answer) for place, answer in enumerate(answers) if isinstance(answer, CacheError)]
    return [place for place, failure in failures if failure.type == "answer-full"]
