"""The cost of a million entries in L1.

    python -m loadtests.bench.l1_memory        prints one JSON object

Entries are made as decoding makes them: key, value and the two times are objects of their own;
content type and windows are shared. The figures include the growth of the process, so the process
must be a fresh one; `measure()` starts one.
"""

import gc
import json
import resource
import subprocess
import sys
import time

from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.l1.l1 import L1

ENTRIES = 1_000_000
VALUE_BYTES = 100
STALE_FOR_US = 60_000_000
ERROR_FOR_US = 600_000_000
GETS = 50_000
POPULAR = 1_000
"""Keys that stay in the processor's caches, as popular ones do.

A get of any of the million keys pays for memory instead: for about ten reads of it, where the get
of a plain dict pays for five.
"""
COLLECTIONS = 5


class GcPauses:
    """The longest run of the garbage collector, by its own callbacks."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._began = 0.0

    def __call__(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.longest_ms = max(self.longest_ms, (time.perf_counter() - self._began) * 1000)


def measure() -> dict[str, float]:
    """The figures of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench.l1_memory"], check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _key(number: int) -> Key:
    return Key.of("pages", f"block:{number:08}")


def _entry(number: int, now_us: int) -> Entry:
    return Entry(
        bytes(bytearray(VALUE_BYTES)),
        now_us + number,
        now_us + 300_000_000 + number,
        STALE_FOR_US,
        ERROR_FOR_US,
    )


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _fill(l1: L1, now_us: int) -> int:
    """Puts all entries; returns the bytes of their keys and values."""
    payload = 0
    for number in range(ENTRIES):
        key = _key(number)
        l1.put(key, _entry(number, now_us))
        payload += len(key.id) + VALUE_BYTES
    return payload


def _serve(l1: L1, keys: list[Key]) -> float:
    """Nanoseconds per get."""
    began = time.perf_counter()
    for key in keys:
        l1.get(key)
    return (time.perf_counter() - began) * 1e9 / len(keys)


def _figures() -> dict[str, float]:
    l1 = L1(budget=1 << 30, max_entries=2 * ENTRIES, clock=SystemClock())
    now_us = SystemClock().now_us()
    gc.collect()
    gc.freeze()
    pauses = GcPauses()
    gc.callbacks.append(pauses)
    before = _resident_bytes()
    began = time.perf_counter()
    payload = _fill(l1, now_us)
    fill_seconds = time.perf_counter() - began
    grown = _resident_bytes() - before
    anywhere = [_key(number * 7919 % ENTRIES) for number in range(GETS)]
    popular = anywhere[:POPULAR] * (GETS // POPULAR)
    hot, uniform = [], []
    for _ in range(COLLECTIONS):
        hot.append(_serve(l1, popular))
        uniform.append(_serve(l1, anywhere))
        gc.collect()
    return {
        "entries": l1.items,
        "bytes_per_entry": round((grown - payload) / ENTRIES, 1),
        "rss_to_charged": round(grown / l1.bytes, 3),
        "gc_pause_ms": round(pauses.longest_ms, 3),
        "get_ns": round(sorted(hot)[COLLECTIONS // 2], 1),
        "get_uniform_ns": round(sorted(uniform)[COLLECTIONS // 2], 1),
        "fill_seconds": round(fill_seconds, 2),
    }


if __name__ == "__main__":
    print(json.dumps(_figures()))
