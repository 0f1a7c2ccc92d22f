"""The recording of a run: tallies by second, and the two files that are made from them.

`samples.jsonl` has a line for each second from the first request to the last one, also for
seconds in which nothing was answered. `summary.json` has the same figures for the whole run. A
request belongs to the second in which it ended.

Each process with users keeps a `Recorder`. A single process hands its tallies to a `Record` every
second. A worker sends them to the master with its reports, every 3 s, so the master waits before
it writes a second.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from loadtests.load.answers import Read
from loadtests.load.arrivals import Turn
from loadtests.load.tally import Tally

REPORT_DELAY = 8
"""Seconds after which no report about a second is expected any more.

It is the time of two reports, and some time for the way.
"""

_decoder = msgspec.json.Decoder(dict[int, Tally])


class Recorder:
    """Tallies by second since the last `drain`. `clock` gives seconds since the epoch."""

    def __init__(
        self, clock: Callable[[], float] = time.time, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self._seconds: dict[int, Tally] = {}
        self._measured = (clock(), cpu())

    def request(self, route: str, seconds: float, reason: str, turn: Turn) -> None:
        """Counts a request that ended now."""
        self._now().request(route, seconds, reason, turn)

    def reads(self, reads: Iterable[Read], lag: float | None) -> None:
        """Counts keys that were read now, and the staleness bound of their answer."""
        self._now().reads(reads, lag)

    def failover(self) -> None:
        """Counts a request that was sent again, to another instance."""
        self._now().failovers += 1

    def measure_cpu(self) -> None:
        """Records the share of a core that this process used since the last call.

        To be called about once a second.
        """
        before, now = self._measured, (self._clock(), self._cpu())
        if now[0] > before[0]:
            self._now().driver_cpu = (now[1] - before[1]) / (now[0] - before[0])
            self._measured = now

    def drain(self) -> dict[int, Tally]:
        """Returns the tallies, those of the current second included, and starts empty again."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _now(self) -> Tally:
        return self._seconds.setdefault(int(self._clock()), Tally())


def to_report(seconds: Mapping[int, Tally]) -> str:
    """The tallies as text for a worker's report to the master.

    The text is JSON, because locust's own messages cannot carry mappings with numbers as keys.
    """
    return msgspec.json.encode(seconds).decode()


def from_report(text: str) -> dict[int, Tally]:
    """The tallies in a report's text."""
    return _decoder.decode(text)


class Record:
    """The files of a run, in `folder`.

    Parts of a second may come from several processes, in any order.
    """

    def __init__(self, folder: Path, *, delay: int) -> None:
        """`delay` is the number of seconds for which parts of a second may still arrive."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._delay = delay
        # Buffered by line: programs that read the file while it grows see whole lines.
        self._samples: IO[str] = (folder / "samples.jsonl").open("w", buffering=1)
        self._pending: dict[int, Tally] = {}
        self._whole = Tally()
        self._first: int | None = None
        self._next = 0
        """The first second that is not written yet."""
        self._came_late = 0

    def add(self, seconds: Mapping[int, Tally]) -> None:
        """Adds tallies. Those of a second that is already written count only in the summary."""
        for at, tally in sorted(seconds.items()):
            self._whole.add(tally)
            if self._first is None:
                self._first = self._next = at
            if at < self._next:  # it was written already, without this part
                self._came_late += 1
                continue
            self._pending.setdefault(at, Tally()).add(tally)

    def write(self, now: float) -> None:
        """Writes the seconds that ended `delay` seconds ago or earlier."""
        if self._first is not None:
            self._write_until(int(now) - self._delay)

    def close(self, about: Mapping[str, Any]) -> None:
        """Writes the remaining seconds, and the summary together with `about`."""
        if self._pending:
            self._write_until(max(self._pending) + 1)
        self._samples.close()
        begun = self._first or 0
        seconds = self._next - begun
        rate = self._whole.figures()["requests"] / seconds if seconds else 0.0
        summary = {
            "begun": begun,
            "seconds": seconds,
            "requests_per_second": round(rate, 1),
            **self._whole.figures(),
            "came_late": self._came_late,
            "about": dict(about),
        }
        (self._folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")

    def _write_until(self, end: int) -> None:
        for at in range(self._next, end):
            print(json.dumps({"t": at, **self._pending.pop(at, Tally()).figures()}), file=self._samples)
        self._next = max(self._next, end)
