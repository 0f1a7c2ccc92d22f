"""The contract of `Loader`, checked on the HTTP loader, the limited one, and the paths' fake."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from msgspec import structs

from cachesvc.config.topology import Origin
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.use import EVERY_USE
from cachesvc.tiers.origin.contract import Loaded, Loader
from cachesvc.tiers.origin.http import HttpLoader
from cachesvc.tiers.origin.limited import LimitedLoader
from loadtests.origin import ReferenceOrigin
from tests.doubles.loaders import ScriptedLoader, absent, loaded, not_modified


class Stand(Protocol):
    """A loader and the origin behind it, which the test can put into a state."""

    @property
    def loader(self) -> Loader: ...

    def serve(self) -> None:
        """Well: a value per key, for a minute, with the tag `docs` and an ETag."""

    def lose(self, text: str) -> None: ...

    def fail(self) -> None: ...

    def hang(self) -> None: ...

    async def asked(self, count: int) -> None:
        """Until the origin has been asked this often."""


class HttpStand:
    def __init__(self, origin: ReferenceOrigin, loader: Loader) -> None:
        self.origin = origin
        self.loader = loader

    def serve(self) -> None:
        self.origin.set(cache_control="max-age=60", groups=["docs"], hang=False, status=0, absent=[])

    def lose(self, text: str) -> None:
        self.origin.set(absent=[text])

    def fail(self) -> None:
        self.origin.set(status=503)

    def hang(self) -> None:
        self.origin.set(hang=True)

    async def asked(self, count: int) -> None:
        await self.origin.asked(count)


class ScriptedStand:
    def __init__(self) -> None:
        self.loader = ScriptedLoader(self._serve)
        self.lost: set[str] = set()
        self.failing = False

    def _serve(self, key: Key) -> Loaded:
        if self.failing:
            raise OriginError("down")
        if key.text in self.lost:
            return absent(tags=("docs",), ttl_us=60 * SECONDS)
        known = self.loader.calls[-1].known
        if known is not None and known.origin_etag == '"v1"':
            again = not_modified(ttl_us=60 * SECONDS, tags=known.tags, etag='"v1"')
            return structs.replace(again, value=known.value)
        return loaded(f"{key.text} v1".encode(), tags=("docs",), ttl_us=60 * SECONDS, etag='"v1"')

    def serve(self) -> None:
        self.failing = False
        self.loader.release()

    def lose(self, text: str) -> None:
        self.lost.add(text)

    def fail(self) -> None:
        self.failing = True

    def hang(self) -> None:
        self.loader.hold()

    async def asked(self, count: int) -> None:
        await self.loader.called(count)


@pytest.fixture(params=["http", "limited http", "scripted"])
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    if request.param == "scripted":
        yield ScriptedStand()
        return
    origin = ReferenceOrigin()
    await origin.start()
    loader: Loader = HttpLoader("docs", Origin(origin.template), clock=SystemClock())
    if request.param == "limited http":
        loader = LimitedLoader(loader, limit=2)
    await loader.start()
    stand = HttpStand(origin, loader)
    stand.serve()
    yield stand
    await loader.stop()
    await origin.stop()


async def load(
    stand: Stand, text: str = "a", *, known: Entry | None = None, timeout_seconds: float = 5
) -> Loaded:
    return await stand.loader.load(Key.of("docs", text), known=known, timeout_seconds=timeout_seconds)


async def test_a_value_comes_with_what_the_origin_said_of_it(stand: Stand) -> None:
    answer = await load(stand)
    assert answer.value.startswith(b"a v1")
    assert (answer.ttl_us, answer.tags, answer.age_us) == (60 * SECONDS, ("docs",), 0)
    assert (answer.absent, answer.not_modified, answer.use) == (False, False, EVERY_USE)
    assert answer.etag


async def test_concurrent_loads_get_their_own_values(stand: Stand) -> None:
    texts = [f"key-{i}" for i in range(20)]
    answers = await asyncio.gather(*(load(stand, text) for text in texts))
    assert [answer.value.split(b" ")[0].decode() for answer in answers] == texts


async def test_absence_is_an_answer(stand: Stand) -> None:
    stand.lose("a")
    answer = await load(stand)
    assert (answer.absent, answer.value, answer.ttl_us, answer.tags) == (True, b"", 60 * SECONDS, ("docs",))


async def test_a_known_copy_that_is_current_is_not_modified_and_comes_with_its_bytes(stand: Stand) -> None:
    first = await load(stand)
    assert first.etag is not None
    again = await load(stand, known=Entry(first.value, 1, 2, tags=("docs",), origin_etag=first.etag))
    assert again.not_modified
    assert (again.value, again.ttl_us, again.tags, again.etag) == (
        first.value,
        first.ttl_us,
        first.tags,
        first.etag,
    )


async def test_a_known_copy_that_is_not_current_is_replaced(stand: Stand) -> None:
    answer = await load(stand, known=Entry(b"old", 1, 2, origin_etag='"v0"'))
    assert not answer.not_modified
    assert answer.value.startswith(b"a v1")


async def test_a_failing_origin_is_a_failure_that_may_be_tried_again(stand: Stand) -> None:
    stand.fail()
    with pytest.raises(OriginError) as raised:
        await load(stand)
    assert raised.value.retryable
    stand.serve()
    assert (await load(stand)).value


async def test_a_hung_origin_fails_within_the_timeout_and_the_next_load_works(stand: Stand) -> None:
    stand.hang()
    with pytest.raises(OriginError) as raised:
        await load(stand, timeout_seconds=0.05)
    assert (raised.value.status, raised.value.retryable) == (504, True)
    stand.serve()
    assert (await load(stand)).value


async def test_a_cancelled_load_is_cancelled_and_the_others_go_on(stand: Stand) -> None:
    stand.hang()
    gone, stays = (asyncio.create_task(load(stand, text)) for text in "ab")
    await stand.asked(2)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    stand.serve()
    assert (await stays).value.startswith(b"b v1")
    assert (await load(stand)).value.startswith(b"a v1")
