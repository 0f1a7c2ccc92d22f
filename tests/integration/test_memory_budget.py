"""A full L1 takes its budget of memory, whatever others chose, and a tenth more at most."""

import json
import resource
import urllib.request
from pathlib import Path

import pytest

from loadtests.bench.l1_shapes import SHAPES, measure
from tests.integration.test_limits_of_process import limited
from tests.integration.test_serve import call

QUICK = ("all at once", "1 MiB")
"""The shapes that are furthest from an entry of the usual kind; the others are `slow`."""


@pytest.mark.parametrize(
    "shape", [shape if shape in QUICK else pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES]
)
def test_a_full_l1_takes_no_more_than_its_budget_and_a_tenth(shape: str) -> None:
    figures = measure(shape)
    assert figures["grown"] <= 1.1
    assert figures["trimmed"] <= 1.02


@pytest.mark.slow
def test_a_service_that_is_filled_over_http_takes_no_more_than_its_budget_and_a_tenth() -> None:
    """Content types of 200 characters and tags, all of them different, with values of one byte.

    What the process keeps of fences (docs/operate.md) is filled before. Other tables are small beside
    this budget.
    """
    budget = 96 << 20  # as the setting below says
    settings = {"CACHESVC_L1_BUDGET": "96MiB", "CACHESVC_COHERENCE_SKETCH_SLOTS": str(1 << 18)}
    with limited(**settings) as (_, url, process):
        _put_batch(url, range(1000))
        for number in range(70):
            keys = [f"{number}-{nth}" for nth in range(1000)]
            _post(f"{url}/v1/invalidations", {"namespace": "pages", "keys": keys})
        before = _resident_bytes(process.pid)
        for number in range(1, 121):
            _put_batch(url, range(number * 1000, number * 1000 + 1000))
        text = call(f"{url}/metrics")[1].decode()
        grown = _resident_bytes(process.pid) - before
    (held,) = [line for line in text.splitlines() if line.startswith("cachesvc_l1_size_bytes ")]
    (evicted,) = [line for line in text.splitlines() if line.startswith("cachesvc_l1_evictions_total ")]
    assert float(held.split()[-1]) <= budget
    assert float(evicted.split()[-1]) > 0
    assert grown <= 1.1 * budget


def _put_batch(url: str, numbers: range) -> None:
    items = [
        {
            "key": f"{number:08}",
            "value": "eA==",
            "content_type": "text/" + f"{number:08}".rjust(195, "x"),
            "tags": [f"{number:08}-{nth}" for nth in range(5)],
        }
        for number in numbers
    ]
    _post(f"{url}/v1/pages:put", {"items": items})


def _post(url: str, document: object) -> None:
    body = json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
        answer.read()


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
