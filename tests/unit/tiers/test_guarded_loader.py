"""An origin that does not answer is left alone; what one key does to it is no reason."""

import pytest

from cachesvc.config.service import Breakers
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.breaker import NOT_TRIED, Breaker
from cachesvc.tiers.origin.contract import Loaded
from cachesvc.tiers.origin.guarded import GuardedLoader
from tests.doubles.loaders import loaded

KEYS = [Key.of("docs", f"{i}") for i in range(20)]
SILENT = OriginError("no answer", kind=ProblemKind.ORIGIN_TIMEOUT)


class Origin:
    def __init__(self) -> None:
        self.loads = 0
        self.failure: OriginError | None = None

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        self.loads += 1
        if self.failure is not None:
            raise self.failure
        return loaded(b"v")

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Bench:
    def __init__(self) -> None:
        self.origin, self.now = Origin(), 0.0
        self.breaker = Breaker(Breakers(failures=3), jitter=0, now=lambda: self.now)
        self.loader = GuardedLoader(self.origin, self.breaker, "docs")

    async def load(self, key: Key) -> Loaded | OriginError:
        try:
            return await self.loader.load(key, known=None, timeout_seconds=1)
        except OriginError as error:
            return error


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_silent_origin_is_left_alone_and_tried_again(bench: Bench) -> None:
    bench.origin.failure = SILENT
    answers = [await bench.load(key) for key in KEYS]
    assert bench.origin.loads == 3
    last = answers[-1]
    assert isinstance(last, OriginError)
    assert (last.kind, last.allows_stale) == (ProblemKind.ORIGIN_FAILED, True)
    assert NOT_TRIED in str(last)
    bench.origin.failure, bench.now = None, 0.1
    while bench.breaker.is_open:
        await bench.load(KEYS[0])
    assert isinstance(await bench.load(KEYS[0]), Loaded)


async def test_one_key_that_takes_too_long_keeps_nobody_from_the_origin(bench: Bench) -> None:
    bench.origin.failure = SILENT
    for _ in range(50):
        await bench.load(KEYS[0])
    assert bench.origin.loads == 50
    assert not bench.breaker.is_open


async def test_an_answer_of_whatever_status_is_no_failure(bench: Bench) -> None:
    for kind, status in ((ProblemKind.ORIGIN_FAILED, 500), (ProblemKind.ORIGIN_REFUSED, 403)):
        bench.origin.failure = OriginError("answered", kind=kind, origin_status=status)
        for key in KEYS:
            await bench.load(key)
    assert bench.origin.loads == 2 * len(KEYS)
