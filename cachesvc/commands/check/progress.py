"""The progress line on stderr: rewritten in place on a terminal, a new line every 10 s in
a log."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from cachesvc.commands.check.history import Read, Record, Write

TERMINAL_SECONDS = 1.0
LOG_SECONDS = 10.0


class Progress:
    """Counts the reads, writes and errors of a run, and shows them."""

    def __init__(self, records: Sequence[Record], duration_seconds: float, out: TextIO) -> None:
        """`records` grows while the run goes on."""
        self._records = records
        self._duration_seconds = duration_seconds
        self._out = out
        self._seen = 0
        self._counts: Counter[str] = Counter()

    async def show(self) -> None:
        """Shows the line again and again until it is cancelled."""
        started = time.monotonic()
        on_terminal = self._out.isatty()
        try:
            while True:
                await asyncio.sleep(TERMINAL_SECONDS if on_terminal else LOG_SECONDS)
                line = self.line(time.monotonic() - started)
                print(
                    f"\r\x1b[K{line}" if on_terminal else line,
                    end="" if on_terminal else "\n",
                    file=self._out,
                    flush=True,
                )
        finally:
            if on_terminal:  # the next output begins on a new line
                print(file=self._out, flush=True)

    def line(self, seconds: float) -> str:
        """The line after so many seconds of the run."""
        for record in self._records[self._seen :]:
            if isinstance(record, Read):
                self._counts["error" if record.outcome == "error" else "read"] += 1
            elif isinstance(record, Write):
                self._counts["write"] += 1
        self._seen = len(self._records)
        is_settling = seconds >= self._duration_seconds
        phase = "settling" if is_settling else f"{seconds:.0f} s of {self._duration_seconds:g} s"
        counts = ", ".join(f"{self._counts[kind]:,} {kind}s" for kind in ("read", "write", "error"))
        return f"check: {phase}, {counts}"
