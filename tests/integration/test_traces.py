"""Real traces through L1, from beside the repository or the folder that `CACHESVC_TRACES` names; skipped where there are none."""

import gzip
import os
import re
from collections import OrderedDict
from pathlib import Path

import pytest

from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.l1.l1 import L1
from tests.doubles.clocks import ManualClock

TRACES = Path(os.environ.get("CACHESVC_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
ENTRY = Entry(b"v", 1, 2)


def requests_of(name: str) -> list[str]:
    path = TRACES / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"no trace {path}")
    with gzip.open(path, "rt") as lines:
        return [line.rstrip("\n").partition(",")[0] for line in lines]


def hit_limit(name: str) -> float:
    """The share that no cache can exceed, from the table beside the traces."""
    row = re.search(rf"^\| {name}\.csv\.gz \|.*$", (TRACES / "README.md").read_text(), re.MULTILINE)
    assert row, f"README.md says nothing of {name}"
    return float(row[0].split("|")[5].strip(" %")) / 100


def hits_of_l1(requests: list[str], capacity: int) -> int:
    l1 = L1(1 << 40, capacity, ManualClock())
    hits = 0
    for text in requests:
        key = Key.of("trace", text)
        if l1.get(key) is not None:
            hits += 1
        else:
            l1.put(key, ENTRY)
    assert l1.items <= capacity
    return hits


def hits_of_exact_lru(requests: list[str], capacity: int) -> int:
    held: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for text in requests:
        if text in held:
            hits += 1
            held.move_to_end(text)
        else:
            held[text] = None
            if len(held) > capacity:
                held.popitem(last=False)
    return hits


@pytest.mark.parametrize("name", ["web12", "sprite"])
@pytest.mark.parametrize("capacity", [100, 1000, 4000])
def test_l1_hits_exactly_as_often_as_lru_does(name: str, capacity: int) -> None:
    requests = requests_of(name)
    hits = hits_of_l1(requests, capacity)
    assert hits == hits_of_exact_lru(requests, capacity)
    assert 0 < hits / len(requests) <= hit_limit(name)


@pytest.mark.parametrize("name", ["web12", "sprite"])
def test_with_room_for_all_only_first_requests_miss(name: str) -> None:
    requests = requests_of(name)
    hits = hits_of_l1(requests, 20_000)
    assert hits == len(requests) - len(set(requests))
    assert hits / len(requests) == pytest.approx(hit_limit(name), abs=0.00005)
