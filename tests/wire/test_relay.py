"""GET /v1/relay on a real socket: an instance follows another one, and how that ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cachesvc.changes.contract import FenceBatch
from cachesvc.changes.relay.frames import FrameError, FrameReader
from cachesvc.changes.relay.relay import Relay
from cachesvc.changes.relay.wires import HttpRelays
from tests.wire.conftest import Site, running_site

MARK = "@5f3a9c01"
START = f"1-0{MARK}"


def read_of(number: int) -> FenceBatch:
    return FenceBatch((), None, position=f"{number}-0{MARK}", items=[(f"{number}-0".encode(), {b"p": b"x"})])


@pytest.fixture
async def relay() -> Relay:
    made = Relay("eu", 1 << 20)
    made.begin(START)
    made.take(START, read_of(2))
    return made


@pytest.fixture
async def site(relay: Relay) -> AsyncIterator[Site]:
    async with running_site(relays={"eu": relay}) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[HttpRelays]:
    made = HttpRelays()
    await made.start()
    yield made
    await made.stop()


def url_of(site: Site) -> str:
    return f"http://127.0.0.1:{site.port}"


async def test_a_follower_is_told_what_follows_its_position(
    site: Site, relay: Relay, client: HttpRelays
) -> None:
    wire = await client.dial(url_of(site), "eu")(START)
    (frame,) = FrameReader("r").feed(await wire.read())
    assert (frame.after, frame.items) == (START, [(b"2-0", {b"p": b"x"})])
    relay.take(f"2-0{MARK}", read_of(3))
    (frame,) = FrameReader("r").feed(await wire.read())
    assert (frame.after, frame.items) == (f"2-0{MARK}", [(b"3-0", {b"p": b"x"})])
    wire.close()


async def test_what_the_relay_does_not_have_ends_the_answer(site: Site, client: HttpRelays) -> None:
    wire = await client.dial(url_of(site), "eu")(f"1-5{MARK}")
    assert await wire.read() == b""


async def test_an_instance_that_stops_ends_it_at_once(site: Site, relay: Relay, client: HttpRelays) -> None:
    wire = await client.dial(url_of(site), "eu")(f"2-0{MARK}")
    reading = asyncio.create_task(wire.read())
    await asyncio.sleep(0.05)
    assert relay.followers == 1
    await site.web.stop()
    with pytest.raises(FrameError, match="its instance stops"):
        FrameReader("r").feed(await reading)
    assert await wire.read() == b""
    assert relay.followers == 0


@pytest.mark.parametrize(
    "query", ["", "?region=eu", "?after=1-0", "?region=us&after=1-0", "?region=eu&after=1-0&x=1"]
)
async def test_a_question_that_is_none_is_refused(site: Site, query: str) -> None:
    answer = await site.ask("GET", f"/v1/relay{query}")
    assert answer.status == 400
    assert b"bad-query" in answer.body


async def test_an_instance_that_is_no_relay_says_so(client: HttpRelays) -> None:
    async with running_site() as other:
        answer = await other.ask("GET", "/v1/relay?region=eu&after=1-0")
        assert (answer.status, b"no-such-path" in answer.body) == (404, True)
        with pytest.raises(FrameError, match="answered 404"):
            await client.dial(url_of(other), "eu")(START)


async def test_a_relay_has_only_so_many_followers(site: Site, relay: Relay, client: HttpRelays) -> None:
    for _ in range(1000):
        relay.follow(START)
    with pytest.raises(FrameError, match="answered 503"):
        await client.dial(url_of(site), "eu")(START)
