"""The replay of a trace: every request once, in order, and nothing that went wrong counted as an answer."""

import argparse
from collections import Counter
from pathlib import Path

from loadtests.replay import _LOOKUP, Tally, UnansweredError, replay, table


class Instance:
    """Answers as the reference origin would, except for keys named for what goes wrong; records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def read(self, key: str) -> tuple[bytes | None, str]:
        self.asked.append(f"read {key}")
        if key == "doc-down":
            raise UnansweredError("unreachable")
        if key == "doc-lost":
            return None, ""
        return (b"doc-other v1" if key == "doc-mixed-up" else f"{key} v1 ".encode()), "l1"

    async def invalidate(self, key: str) -> None:
        self.asked.append(f"invalidate {key}")


async def test_requests_are_asked_in_the_order_of_the_trace_and_every_nth_key_is_invalidated_first() -> None:
    instance = Instance()
    tally = await replay([instance], ["doc-1", "doc-2", "doc-3"], workers=1, invalidate_every=2)
    assert instance.asked == ["read doc-1", "invalidate doc-2", "read doc-2", "read doc-3"]
    assert (len(tally.latencies), tally.invalidations, tally.failures.total()) == (3, 1, 0)


async def test_workers_share_the_trace_so_that_each_request_is_asked_once() -> None:
    instances = [Instance(), Instance()]
    keys = [f"doc-{number}" for number in range(100)]
    await replay(instances, keys, workers=8, invalidate_every=0)
    assert sorted(instances[0].asked + instances[1].asked) == sorted(f"read {key}" for key in keys)


async def test_failures_misses_and_another_keys_bytes_are_no_answers() -> None:
    tally = await replay(
        [Instance()], ["doc-down", "doc-lost", "doc-mixed-up", "doc-1"], workers=1, invalidate_every=0
    )
    assert tally.failures == {"unreachable": 1, "a miss": 1, "the bytes of another key": 1}
    assert len(tally.latencies) == 1


def test_hits_are_read_from_the_look_ups_metric_whatever_the_order_of_its_labels() -> None:
    exposition = (
        'cachesvc_lookups_total{tier="l1",outcome="hit"} 41.0\n'
        'cachesvc_lookups_total{outcome="stale",tier="l2"} 1.0\n'
        'cachesvc_lookups_total{tier="l1",outcome="miss"} 9.0\n'
    )
    assert _LOOKUP.findall(exposition) == [("l1", "hit", "41.0"), ("l2", "stale", "1.0")]


def test_the_parts_of_the_table_add_up_to_the_requests() -> None:
    args = argparse.Namespace(
        trace=Path("t.csv.gz"), raw=False, workers=2, url=["http://a"], namespace="docs", invalidate_every=0
    )
    tally = Tally(
        latencies=[0.001] * 9, failures=Counter({"a miss": 1}), keys={"doc-1", "doc-2"}, seconds=0.5
    )
    lines = table(args, tally, Counter(l1=4, l2=2, l3=1), loads=1)
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "requests 10",
        "different keys 2 (20.0%)",
        "l1 hits 4 (40.0%)",
        "l2 hits 2 (20.0%)",
        "l3 hits 1 (10.0%)",
        "loaded, or shared a load or look-up 2 (20.0%)",
        "origin loads, counted there 1 (10.0%)",
        "not answered: a miss 1",
        "p50 1.00 ms",
        "p99 1.00 ms",
        "requests/s 20",
    ]
