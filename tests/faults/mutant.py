"""A service instance that has something wrong, started in place of `python -m cachesvc`.

    python -m tests.faults.mutant --without l2-sketch --clock-offset=-40ms serve --topology …

    --without NAME                       a protection is switched off (`tests/doubles/mutants.py`)
    --journal PATH                       it has a journal (there is nothing wrong with that)
    --clock-offset 40ms                  its clock is ahead by this (or behind, if negative)
    --clock-turns-every 2s               every 2 s the clock is off to the other side
    --die-between-apply-and-publish N    it kills itself when the N-th change is applied in its home
                                         cells and its fence is not published yet

All other arguments are those of the service.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from cachesvc import cli
from cachesvc.changes.contract import Done
from cachesvc.changes.redis.fences import RedisFenceStream
from cachesvc.model.clock import SystemClock
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from tests.doubles.mutants import MUTANTS


def shift_clock(offset_us: int, turns_every_us: int) -> None:
    """Shifts every clock of this process that reads the machine's time.

    The offset changes its sign every `turns_every_us`; with 0 it never does.
    """
    now_us = SystemClock.now_us

    def shifted(self: SystemClock) -> int:
        now = now_us(self)
        is_turned = turns_every_us and now // turns_every_us % 2
        return now - offset_us if is_turned else now + offset_us

    # In this process alone, and before anything reads the clock.
    SystemClock.now_us = shifted  # type: ignore[method-assign]  # replaced on purpose


def die_before_publishing(nth: int) -> None:
    """Kills this process when its `nth` change is applied in the home cells.

    Nothing has been published about that change then.
    """
    publish = RedisFenceStream.publish
    count = 0

    async def publish_or_die(
        self: RedisFenceStream, fences: Sequence[Fence], *, done: Sequence[Done] = (), **more: Any
    ) -> str:
        nonlocal count
        count += bool(done)
        if count == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return await publish(self, fences, done=done, **more)

    RedisFenceStream.publish = publish_or_die  # type: ignore[method-assign]  # replaced on purpose


def signed_us(text: str) -> int:
    """The µs of `40ms` or `-40ms`."""
    size = int(Duration.parse(text.removeprefix("-")))
    return -size if text.startswith("-") else size


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.mutant", description="A service instance with something wrong."
    )
    parser.add_argument("--without", action="append", default=[], choices=sorted(MUTANTS))
    parser.add_argument("--clock-offset", type=signed_us, default=0, metavar="DURATION")
    parser.add_argument("--clock-turns-every", type=signed_us, default=0, metavar="DURATION")
    parser.add_argument("--die-between-apply-and-publish", type=int, default=0, metavar="N")
    parser.add_argument("--journal", default="", metavar="PATH")
    wrong, service = parser.parse_known_args(arguments)
    if wrong.journal:
        os.environ["CACHESVC_QUEUE_JOURNAL_PATH"] = wrong.journal
    for name in wrong.without:
        MUTANTS[name].apply()
    if wrong.clock_offset:
        shift_clock(wrong.clock_offset, wrong.clock_turns_every)
    if wrong.die_between_apply_and_publish:
        die_before_publishing(wrong.die_between_apply_and_publish)
    return cli.main(service)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
