"""What a million fences cost an instance: `python -m loadtests.bench.fence_memory` prints one JSON object.

They come in batches as a feed brings them. The sketch's pages become memory when they are first written, so it is written all
over before: what is measured is what merging itself takes.
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
    clock, rng = SystemClock(), random.Random(0)
    fences = Fences(clock, 100_000, Coherence().sketch_slots, ["bench"], 5_000_000)
    for _ in range(2):  # the second time nothing is touched first
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
    """One check of a hit without tags against a sketch that is in use, less the loop around it."""
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
