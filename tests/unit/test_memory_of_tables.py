"""Tables whose content others choose take no more memory than the document says (docs/operate.md)."""

import random
import tracemalloc
from collections.abc import Callable

import pytest
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cachesvc.changes.broadcast.events import Event
from cachesvc.changes.broadcast.log import LOG_BYTES, LOG_FENCES, EventLog
from cachesvc.coherence import paced_fences
from cachesvc.coherence.fences import MOST_UNAPPLIED, Fences
from cachesvc.coherence.merge_history import MOST as MOST_MERGES
from cachesvc.coherence.merge_history import MergeLog
from cachesvc.coherence.paced_fences import PacedFences
from cachesvc.coherence.recent_merges import CAPACITY, RecentMerges
from cachesvc.model.entry import Entry, Key
from cachesvc.model.fence import Fence
from cachesvc.telemetry.popularity.hot_keys import COUNTED, HotKeys
from cachesvc.telemetry.popularity.read_sample import SIZE, ReadSample
from cachesvc.web.lane import MOST_BLOCKS, Lane
from cachesvc.web.requests.hosts import Hosts
from tests.doubles.clocks import ManualClock

MIB = 1 << 20
NOW = 1_700_000_000_000_000


def event_log(rng: random.Random) -> object:
    """Small events: one fence each, of three regions."""
    log, regions = EventLog(LOG_FENCES, LOG_BYTES), ["eu-north", "us-east", "ap-south"]
    vector = ",".join(f"{region}=1700000000000-{rng.randrange(10**6)}" for region in regions)
    for number in range(50_000):
        id_ = f"{vector[:-1]}{number}"
        log.append(Event(regions[number % 3], f"1700000000000-{number}", id_, [_fence(rng)]))
    return log


def rendered_event_log(rng: random.Random) -> object:
    """As `event_log`, with a subscriber that has had each event."""
    log = event_log(rng)
    assert isinstance(log, EventLog)
    for number in range(log.first, log.end):
        log[number].render()
    return log


def _fence(rng: random.Random) -> Fence:
    return Fence(rng.getrandbits(64), NOW + rng.getrandbits(20), issuers=(("c1", rng.getrandbits(64)),))


def unapplied(rng: random.Random) -> object:
    fences = Fences(ManualClock(), 100_000, 1 << 10, ["eu"], 1)
    fences._recent = RecentMerges(1, 1 << 10)  # it is looked at by itself
    for at in range(2 * MOST_UNAPPLIED // 512):
        fences.merge([Fence(rng.getrandbits(64), NOW + at, unapplied=True) for _ in range(512)])
        fences.log = MergeLog()
    return fences


def paced(rng: random.Random) -> object:
    """One window of each target, which takes most."""
    fences = PacedFences(10**12)
    for at in range(2 * paced_fences.MOST):
        fences.merge(rng.getrandbits(64), NOW + at, 10**12 + at, NOW)
    return fences


def merges(rng: random.Random) -> object:
    """Batches of one fence each, every one of a namespace."""
    log = MergeLog()
    for at in range(2 * MOST_MERGES):
        log.note([Fence(rng.getrandbits(64), NOW + at, namespace="n" * 60 + str(at % 4))], "eu", NOW + at)
    return log


def recent(rng: random.Random) -> object:
    numbered = RecentMerges(10**12)
    for _ in range(2 * CAPACITY):
        numbered.add(rng.getrandbits(64), NOW)
    return numbered


def hot_keys(rng: random.Random) -> object:
    """One namespace in two windows, every key of the longest."""
    clock = ManualClock()
    hot = HotKeys(["pages"], clock)
    for window in range(2):
        for number in range(2 * COUNTED):
            hot.read(Key.of("pages", f"{window}-{number}".rjust(1024, "k")), number)
        clock.advance(seconds=61)
    return hot


def sample(rng: random.Random) -> object:
    """Reads of entries with 128 tags that L1 does not hold any more."""
    found = ReadSample(HotKeys(["pages"], ManualClock()), rng)
    for number in range(2 * SIZE):
        digests = tuple(rng.getrandbits(64) for _ in range(128))
        found.note(Key.of("pages", str(number)), Entry(b"", 1, 2, tag_digests=digests))
    return found


def lane(rng: random.Random) -> object:
    """The longest blocks of header lines, each with a token that is nearly all of it."""
    found = Lane(lambda *_: None, ["pages"], Hosts("::"))
    for _ in range(MOST_BLOCKS):
        value = b"Bearer " + rng.randbytes(1000).hex().encode()
        head = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % value
        raw_headers = ((b"Host", b"x"), (b"Authorization", bytes(bytearray(value))))
        message = RawRequestMessage(
            "GET", "/v1/pages/k", HttpVersion11, CIMultiDictProxy(CIMultiDict()),
            raw_headers, False, None, False, False, URL("/v1/pages/k"),
        )  # fmt: skip
        found.learn(head, message)
    return found


@pytest.mark.parametrize(
    ("fill", "most"),
    [
        (event_log, LOG_BYTES),
        (rendered_event_log, LOG_BYTES),
        (unapplied, 14 * MIB),
        (paced, 40 * MIB),
        (merges, 7 * MIB),
        (recent, 11 * MIB),
        (hot_keys, MIB // 2),
        (sample, 12 * MIB),
        (lane, 4 * MIB),
    ],
)
def test_a_full_table_takes_what_the_document_says(
    fill: Callable[[random.Random], object], most: int
) -> None:
    rng = random.Random(0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        full = fill(rng)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert full is not None
    print(fill.__name__, round(taken / MIB, 1), "MiB")
    assert most / 4 <= taken <= 1.1 * most
