"""The cost of a million fences in an instance.

    python -m loadtests.bench.fence_memory     prints one JSON object

The fences come in batches, as a feed delivers them. A page of the sketch takes memory only when
it is first written. So all pages are written once before, and the figures show what merging
itself takes.
"""

import json
import random
import resource
import time

from cachesvc.coherence.fences import Fences
from cachesvc.config.service import Coherence
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.fence import Fence

FENCES = 1_000_000
BATCH = 500
CHECKS = 200_000


def measure() -> dict[str, float]:
    """Seconds to merge the fences, bytes of growth, and µs of one check."""
    clock, rng = SystemClock(), random.Random(0)
    fences = Fences(clock, 100_000, Coherence().sketch_slots, ["bench"], 5_000_000)
    for _ in range(2):  # in the second round no page of the sketch is written for the first time
        batches = [
            [Fence(rng.getrandbits(64), clock.now_us()) for _ in range(BATCH)] for _ in range(FENCES // BATCH)
        ]
        before = _resident_bytes()
        began = time.perf_counter()
        for batch in batches:
            fences.merge(batch)
        seconds = time.perf_counter() - began
        grown = _resident_bytes() - before
    return {"merge_seconds": seconds, "grown_bytes": grown, "check_us": _check_us(fences, clock)}


def _check_us(fences: Fences, clock: SystemClock) -> float:
    """Microseconds of one check: a hit without tags against a sketch that is in use.

    The time of the loop around the check is subtracted.
    """
    now = clock.now_us()
    keys = [Key.of("bench", str(number)).digest for number in range(CHECKS)]
    entry = Entry(b"", now + 200_000, now + 10**9)
    timings = []
    for judge in (fences.admits, lambda *_: True):
        began = time.perf_counter()
        for digest in keys:
            judge(entry, digest, "bench", now)
        timings.append((time.perf_counter() - began) * 1e6 / CHECKS)
    return timings[0] - timings[1]


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(json.dumps(measure()))
