"""A service instance with something wrong: what a drill starts in place of `python -m cachesvc`.

    python -m tests.faults.mutant --without l2-sketch --clock-offset=-40ms serve --topology …

`--without NAME`                       a protection is switched off (`tests/doubles/mutants.py`)
`--clock-offset 40ms`                  its clock is ahead (or behind) by so much
`--clock-turns-every 2s`               … and on the other side of the true time after so long, and back, and so on
`--die-between-apply-and-publish N`    it kills itself when the N-th change is applied in its home cells and nobody was told yet

Everything after these words is the service's own.
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
    """Every clock of this process that was read from the machine is off by this. `turns_every_us` 0: always by the same."""
    now_us = SystemClock.now_us

    def shifted(self: SystemClock) -> int:
        now = now_us(self)
        is_turned = turns_every_us and now // turns_every_us % 2
        return now - offset_us if is_turned else now + offset_us

    SystemClock.now_us = shifted  # type: ignore[method-assign]  # in this process alone, before anything reads it


def die_before_publishing(nth: int) -> None:
    """The home cells have applied the change, and this process ends without another word."""
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

    RedisFenceStream.publish = publish_or_die  # type: ignore[method-assign]  # as above


def signed_us(text: str) -> int:
    """`40ms` or `-40ms`."""
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
    wrong, service = parser.parse_known_args(arguments)
    for name in wrong.without:
        MUTANTS[name].apply()
    if wrong.clock_offset:
        shift_clock(wrong.clock_offset, wrong.clock_turns_every)
    if wrong.die_between_apply_and_publish:
        die_before_publishing(wrong.die_between_apply_and_publish)
    return cli.main(service)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
