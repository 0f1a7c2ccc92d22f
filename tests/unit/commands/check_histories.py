"""Small histories to judge: one key, three instances in two regions, and times in µs that one can count on fingers."""

from collections.abc import Sequence
from typing import Any

from cachesvc.commands.check.history import Announcement, Fenced, Merged, Read, Record, Run, Write
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.verdicts import Finding

KEY = "k"
INSTANCES = ("eu/eu-a", "eu/eu-b", "us/us-a")
BOUND = 20 + 5 + 2

RUN = Run(seed=1, instances=INSTANCES, max_lag_us=20, heartbeat_us=5, skew_us=2)


def write(w: int, committed: int) -> Write:
    return Write(key=KEY, w=w, committed=committed)


def call(w: int, started: int, ended: int, **more: Any) -> Announcement:
    """An announcement by the invalidate API at eu-a."""
    told = {"how": "api", "region": "eu", "instance": "eu/eu-a", "id": f"eu:{w}-0", **more}
    return Announcement(writes=((KEY, w),), started=started, ended=ended, **told)


def event(w: int, started: int, ended: int, **more: Any) -> Announcement:
    return call(w, started, ended, **{"how": "event", "instance": "", **more})


def fenced(w: int, position: str) -> Fenced:
    return Fenced(id=f"eu:{w}-0", region="eu", position=position, at=1_000)


def merged(position: str, at: int, instance: str = "eu/eu-a") -> Merged:
    return Merged(instance=instance, region="eu", position=position, at=at)


def read(w: int | None, started: int, instance: str = "eu/eu-a", **more: Any) -> Read:
    """That takes 1 µs."""
    told = {"ended": started + 1, "outcome": "error" if w is None else "hit", "tier": "l1", **more}
    return Read(instance=instance, key=KEY, started=started, w=w, **told)


def finding(check: str, records: Sequence[Record], run: Run = RUN) -> Finding:
    return judge([run, *records]).finding(check)


def state(check: str, *records: Record) -> str:
    return finding(check, records).state
