"""Protections against servers that fail, hang or are far away.

No wrong value is answered without one of them, so no trace of docs/coherence.md shows it. Each of
them shows in a figure of its own (`tests/contracts/test_protections.py`).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tests.doubles.edits import Edit, InPython

BREAKER = "cachesvc.tiers.breaker:"
GUARDED = "cachesvc.tiers.l2.guarded:Guarded."

BACKENDS: dict[str, Sequence[Edit]] = {
    "breaker of memcached servers": [
        InPython(GUARDED + "get_many", "not self.breaker.admits()", "False"),
        InPython(GUARDED + "set_many", "not self.breaker.admits()", "False"),
    ],
    "breaker of cells": [
        InPython("cachesvc.tiers.l3.redis_cell:RedisCell._exchange", "not self.breaker.admits()", "False"),
    ],
    "breaker of queues": [
        InPython("cachesvc.changes.redis.server:RedisServer.batcher", "not self._breaker.admits()", "False"),
    ],
    "breaker of origins": [
        InPython("cachesvc.tiers.origin.guarded:GuardedLoader.load", "not breaker.admits()", "False"),
    ],
    "breaker of other instances": [
        InPython("cachesvc.explain.peers:HttpPeers._ask", "not breaker.admits()", "False"),
    ],
    "breaker of relays": [
        InPython(
            "cachesvc.changes.relay.follower:RelayedFollower._connect", "not way.breaker.admits()", "False"
        ),
    ],
    "refused connections": [
        InPython(BREAKER + "Breaker.failed", "at_once or self._fails", "self._fails"),
    ],
    "late answers": [InPython(BREAKER + "Breaker.answered", "self._is_late(seconds)", "False")],
    "growing pauses": [
        InPython(
            BREAKER + "Breaker.failed",
            "self._pause = min(2 * self._pause, self._longest_pause)",
            "pass",
        ),
    ],
    "jitter": [InPython(BREAKER + "Breaker._next_probe", "self._rng.random()", "0")],
    "shares": [
        InPython(BREAKER + "Breaker.succeeded", "max(FIRST_SHARE, 2 * self._share)", "1.0"),
    ],
    "part of a pool": [InPython(BREAKER + "Breaker.failed", "self._may_open()", "True")],
    "gutter": [
        InPython(GUARDED + "get_many", "self.gutter is None", "True"),
        InPython(GUARDED + "set_many", "self.gutter is None", "True"),
    ],
    "round trips": [
        InPython("cachesvc.tiers.round_trip:RoundTrip.saw", "self.samples += 1", "return"),
    ],
    "following sentinels": [
        InPython(
            "cachesvc.tiers.sentinels:MasterName.follow",
            "loop.time() - self._followed_at >= FOLLOW_SECONDS and self.place is not None",
            "False",
        ),
    ],
    "watch over workers": [
        InPython(
            "cachesvc.app.supervisor:Supervisor._kill_hung",
            "(silent := now - child.beat_at) > self._hung_seconds",
            "(silent := 0.0)",
        ),
    ],
}
"""The edits that take a protection out, by its name."""


@contextmanager
def unprotected(name: str) -> Iterator[None]:
    """Runs the block without the protection `name`; what is built in it has none."""
    with ExitStack() as put_back:
        for edit in BACKENDS[name]:
            put_back.callback(edit.apply())
        yield
