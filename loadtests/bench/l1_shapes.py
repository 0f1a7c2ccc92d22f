"""The growth of a process whose L1 is full of one shape of entries, in budgets.

    python -m loadtests.bench.l1_shapes SHAPE      prints one JSON object

The entries come out of envelopes, as from L2 and L3, and are put until each has been replaced
`TURNS - 1` times. The first look (`grown`) is what a machine has to have. Before the second look
(`trimmed`), what the allocator holds free is given back to the system: once a value of more than
128 KiB was freed, glibc takes the next ones of its size from its heap, which has gaps then. The
gaps are 5 to 12 MiB whatever the budget, so shapes with such values are put into a large one.
"""

import ctypes
import gc
import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable

from msgspec.structs import replace

from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.tiers.envelope import pack, unpack
from cachesvc.tiers.l1.l1 import L1

BUDGET = 64 << 20
LARGE_BUDGET = 256 << 20
"""The budget for values of more than 128 KiB: the default of the service."""
TURNS = 3
TTL_US = 300 * SECONDS
MIXED = (1, 50, 500, 3_000, 5_000, 40_000, 140_000, 900_000)
"""Bytes of the values of the shape `mixed`."""


def _tags(number: int, count: int, size: int) -> dict[str, object]:
    tags = tuple(f"tag-{number}-{nth}".ljust(size, "t") for nth in range(count))
    return {"tags": tags, "tag_digests": tag_digests_of("pages", tags)}


def _text(number: int, size: int) -> str:
    return f"{number:08}".rjust(size, "x")


def _all_at_once(number: int) -> dict[str, object]:
    """Everything that a caller and an origin may choose, each as large as it may be."""
    return {
        "content_type": "text/" + _text(number, 251),
        "origin_etag": f'"{_text(number, 256)}"',
        "stale_for": SECONDS * (1000 + number),
        "error_for": SECONDS * (1000 + number),
        "load_ms": 1000 + number,
    }


SHAPES: dict[str, tuple[int, int, Callable[[int], dict[str, object]]]] = {
    "tiny": (8, 1, lambda _: {}),
    "long keys": (1018, 1, lambda _: {}),
    "one tag": (8, 1, lambda number: _tags(number, 1, 0)),
    "100 tags": (8, 1, lambda number: _tags(number, 100, 0)),
    "100 long tags": (8, 1, lambda number: _tags(number, 100, 256)),
    "content types": (8, 1, lambda number: {"content_type": "text/" + _text(number, 251)}),
    "ETags": (8, 1, lambda number: {"origin_etag": f'"{_text(number, 256)}"'}),
    "all at once": (8, 1, _all_at_once),
    "100 B": (8, 100, lambda _: {}),
    "below a size class": (8, 479, lambda _: {}),
    "above a size class": (8, 480, lambda _: {}),
    "below 128 KiB": (8, 131_000, lambda _: {}),
    "above 128 KiB": (8, 131_100, lambda _: {}),
    "1 MiB": (8, 1 << 20, lambda _: {}),
    "mixed": (8, 0, lambda _: {}),
}
"""Name → characters of a key, bytes of a value, and the other fields of an entry."""


def measure(shape: str) -> dict[str, float]:
    """Returns the figures of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.bench.l1_shapes", shape],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _trim() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def _put(l1: L1, shape: str, number: int, now_us: int) -> None:
    key_size, value_size, more = SHAPES[shape]
    key = Key.of("pages", _text(number, key_size))
    size = value_size or random.Random(number).choice(MIXED)
    as_of = now_us + number
    made = replace(Entry(bytes(bytearray(size)), as_of, as_of + TTL_US), **more(number))
    found = unpack(key, pack(key, made))
    assert found is not None
    l1.put(key, found)


def _figures(shape: str) -> dict[str, float]:
    budget = BUDGET if 0 < SHAPES[shape][1] <= 1 << 17 else LARGE_BUDGET
    l1 = L1(budget, 4_000_000, SystemClock())
    now_us = SystemClock().now_us()
    _put(l1, shape, 0, now_us)
    l1.clear()
    _trim()
    gc.freeze()
    before = _resident_bytes()
    number = until = 0
    while number <= until or not l1.evictions:
        number += 1
        _put(l1, shape, number, now_us)
        if l1.evictions == 1:
            until = TURNS * number
    gc.collect()
    grown = _resident_bytes() - before
    _trim()
    trimmed = _resident_bytes() - before
    return {
        "entries": l1.items,
        "bytes_per_entry": round(trimmed / l1.items),
        "charged_per_entry": round(l1.bytes / l1.items),
        "grown": round(grown / budget, 3),
        "trimmed": round(trimmed / budget, 3),
    }


if __name__ == "__main__":
    print(json.dumps(_figures(sys.argv[1])))
