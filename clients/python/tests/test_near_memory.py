"""A full shelf takes its budget of memory, whatever came, and a tenth more at most."""

import ctypes
import gc
import json
import resource
import subprocess
import sys
import time
from itertools import count
from typing import Any

import msgspec
import pytest
from cachesvc_client.near.footprint import bytes_of_object
from cachesvc_client.near.near import Near
from cachesvc_client.near.settings import NearSettings
from cachesvc_client.protocol.wire import Got, GotMany
from cachesvc_client.values.codecs import Schema, json_of
from msgspec import Struct

BUDGET = 32 << 20
SHAPES = (
    "plain",
    "a tag",
    "100 tags",
    "the same 100 tags",
    "long keys",
    "content types",
    "numbers",
    "nested",
    "1 MiB",
)


class Named(Struct, frozen=True):
    """The value of most shapes; it is kept as it was decoded."""

    name: str


KINDS: dict[str, Any] = {"numbers": tuple[int, ...], "nested": tuple[tuple[int, ...], ...]}


def _answer(shape: str, number: int) -> tuple[str, Got]:
    name = f"{number:08}"
    key = name.rjust(1000, "k") if shape == "long keys" else name
    value: object = Named("x" * (1 << 20) if shape == "1 MiB" else name)
    if shape == "numbers":
        value = tuple(range(1000, 1100))
    elif shape == "nested":
        value = tuple((part % 10,) for part in range(100))
    tags: tuple[str, ...] = ()
    if shape == "a tag":
        tags = (f"t{name}",)
    elif "100 tags" in shape:
        tags = tuple(f"t{name if shape == '100 tags' else ''}-{nth}" for nth in range(100))
    kind = "application/json"
    if shape == "content types":
        kind += "; x=" + name.rjust(230, "x")
    return key, Got("hit", msgspec.json.encode(value), "l1", 1, 300, 0, kind, tags)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _grown(shape: str) -> float:
    """Returns the growth of this process when a shelf was filled twice, in budgets."""
    near = Near(time.monotonic, lambda *_: None)
    settings = NearSettings(max_entries=10_000_000, max_bytes=BUDGET, max_lag=60.0)
    shelf = near.shelf("pages", settings, Schema(json_of(KINDS.get(shape, Named))))
    decode = msgspec.msgpack.Decoder(GotMany).decode

    def keep(number: int) -> None:
        now_us = int(time.time() * 1e6)
        near.heartbeat(now_us, now_us)
        key, got = _answer(shape, number)
        got.as_of = now_us
        (came,) = decode(msgspec.msgpack.encode(GotMany([got]))).results
        came.lag = 0.01
        assert shelf.keep(key, came, time.monotonic())
        shelf.value(key)

    near.raise_floor(1)
    keep(0)
    shelf.begin()
    gc.collect()
    before = _resident_bytes()
    until = 0
    for number in count(1):
        keep(number)
        if shelf.evicted and not until:
            until = 2 * number
        if number == until:
            break
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if shape == "1 MiB" and trim is not None:
        trim(0)  # the room of a few values, which is much of so small a budget
    return (_resident_bytes() - before) / BUDGET


QUICK = ("the same 100 tags", "nested")
"""The shapes that were furthest from their charge: 21 and 4 times the budget. The others are `slow`."""


@pytest.mark.parametrize(
    "shape", [shape if shape in QUICK else pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES]
)
def test_a_full_shelf_takes_no_more_than_its_budget_and_a_tenth(shape: str) -> None:
    program = "import json, sys; from test_near_memory import _grown; print(json.dumps(_grown(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", program, shape],
        check=True,
        capture_output=True,
        text=True,
        cwd=__file__.rpartition("/")[0],
    )
    assert json.loads(done.stdout) <= 1.1


def test_an_object_is_charged_with_all_its_parts() -> None:
    assert bytes_of_object((1000, "ab")) > bytes_of_object((1000,)) > bytes_of_object(())
    assert bytes_of_object(Named("x" * 1000)) > 1000
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert bytes_of_object(deep) > 100_000 * 40
