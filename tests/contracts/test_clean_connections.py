"""Every client of every server refuses an answer that it did not ask for.

One server per protocol sends one well-formed answer too many: in one packet with an answer, later,
or in two parts. The clients must give the next two callers their own answers, never each other's,
and never the surplus one.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, BinaryIO, TypeAlias

import aiohttp
import cachesvc_client
import cachesvc_client.sync
import msgspec
import pytest
from cachesvc_client.aio.clean_connector import CleanConnector as CleanConnectorOfTheSdk
from redis.asyncio import Redis

from cachesvc.changes.redis.server import RedisServer
from cachesvc.config import service as config
from cachesvc.config.topology import Origin
from cachesvc.explain import peers
from cachesvc.explain.answer import Question, Seen
from cachesvc.explain.peers import HttpPeers
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Key
from cachesvc.model.errors import OriginError, TierError
from cachesvc.model.units import Duration
from cachesvc.telemetry.otlp_http import NotTakenError, Receiver
from cachesvc.tiers.clean_connector import CleanConnector
from cachesvc.tiers.l2.memcached_client import PipelinedClient
from cachesvc.tiers.l2.memcached_thread import MemcachedThread
from cachesvc.tiers.l3.connection_pool import CellConnectionPool
from cachesvc.tiers.l3.issuer import Issuer
from cachesvc.tiers.l3.script import ATTACH, READ
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.talkative_server import TalkativeServer, http_request, redis_command, talkative

SURPLUS = "surplus"
"""The name whose value the surplus answer has."""
TURNS = 5
"""Turns of the event loop after which the loop has read what is in the kernel."""

Ask: TypeAlias = Callable[[str], Awaitable[str]]
"""Asks the server for the value of a name, which is the name."""


def http_answer(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Whatever\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Protocol:
    """The server's side of a client, and the client."""

    def answer_to(self, name: str) -> bytes:
        """The whole answer to a request for this name."""
        return http_answer(name.encode())

    def surplus(self) -> bytes:
        return self.answer_to(SURPLUS)

    def answer(self, requests: BinaryIO) -> bytes | None:
        """Reads a request and returns its answer."""
        path = http_request(requests)
        return None if path is None else self.answer_to(path.rpartition("/")[2])

    def client(self, port: int) -> AbstractAsyncContextManager[Ask]:
        raise NotImplementedError


class OfTheOrigin(Protocol):
    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        loader = HttpLoader("pages", Origin(f"http://127.0.0.1:{port}/{{key}}"), clock=SystemClock())
        await loader.start()

        async def ask(name: str) -> str:
            return (await loader.load(Key.of("pages", name), known=None, timeout_seconds=5)).value.decode()

        yield ask
        await loader.stop()


class OfPeers(Protocol):
    def answer_to(self, name: str) -> bytes:
        told = int.from_bytes(name.partition(":")[0].encode())  # an instance tells nobody else's name
        return http_answer(msgspec.json.encode(Seen("eu", "eu-a", clock=told)))

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        others = HttpPeers({("eu", "eu-a"): f"http://127.0.0.1:{port}"})
        await others.start()

        async def ask(name: str) -> str:
            (seen,) = await others.ask(Key.of("pages", name), Question())
            if seen.unavailable:
                raise TierError("peer", seen.unavailable)
            return seen.clock.to_bytes(8).lstrip(b"\0").decode()

        yield ask
        await others.stop()


class OfTheSdk(Protocol):
    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        url = f"http://127.0.0.1:{port}"
        async with cachesvc_client.Cache.from_url(
            url, default_timeout="5s", batching=False, discover=False
        ) as cache:
            pages = cache.namespace("pages")

            async def ask(name: str) -> str:
                value = await pages.get(name)
                assert isinstance(value, bytes)
                return value.decode()

            yield ask


class OfTheSyncSdk(Protocol):
    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        url = f"http://127.0.0.1:{port}"
        with cachesvc_client.sync.Cache.from_url(
            url, default_timeout="5s", batching=False, discover=False
        ) as cache:
            pages = cache.namespace("pages")

            async def ask(name: str) -> str:
                value = await asyncio.to_thread(pages.get, name)
                assert isinstance(value, bytes)
                return value.decode()

            yield ask


class OfTheReceiverOfSpans(Protocol):
    """Its answers have no value; the surplus one is a refusal of no message."""

    def surplus(self) -> bytes:
        return http_answer(b"", 400)

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        receiver = Receiver(f"http://127.0.0.1:{port}/v1/traces", {})

        async def ask(name: str) -> str:
            await asyncio.to_thread(receiver.post, name.encode())
            return name

        yield ask


class OfMemcached(Protocol):
    """Reads. The surplus answer is an older value of the name that is read next."""

    def answer_to(self, name: str) -> bytes:
        return b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (name.encode(), len(name), name.encode())

    def surplus(self) -> bytes:
        return b"VALUE b 0 3\r\nold\r\nEND\r\n"

    def answer(self, requests: BinaryIO) -> bytes | None:
        command, _, name = requests.readline().decode().strip().partition(" ")
        return self.answer_to(name) if command else None

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        thread = MemcachedThread("mc", PipelinedClient(f"127.0.0.1:{port}", timeout=5, connect_timeout=5))
        await thread.start()

        async def ask(name: str) -> str:
            found = await thread.run(lambda client: client.fetch([name.encode()]))
            if isinstance(found, TierError):
                raise found
            return found[name.encode()].decode()

        yield ask
        await thread.stop()


class OfMemcachedWrites(OfMemcached):
    """Writes, each answered by its own line here, so that a shifted answer shows."""

    def answer_to(self, name: str) -> bytes:
        return f"STORED {name}\r\n".encode()

    def surplus(self) -> bytes:
        return self.answer_to(SURPLUS)

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        thread = MemcachedThread("mc", PipelinedClient(f"127.0.0.1:{port}", timeout=5, connect_timeout=5))
        await thread.start()

        async def ask(name: str) -> str:
            replies = await thread.run(lambda client: client.exchange([f"set {name}\r\n".encode()]))
            if isinstance(replies, TierError):
                raise replies
            return replies[0].decode().removeprefix("STORED ")

        yield ask
        await thread.stop()


def bulk(text: str) -> bytes:
    return f"${len(text)}\r\n{text}\r\n".encode()


class OfACell(Protocol):
    def answer_to(self, name: str) -> bytes:
        return b"*1\r\n" + bulk(name)

    def answer(self, requests: BinaryIO) -> bytes | None:
        match redis_command(requests):
            case None:
                return None
            case [b"HELLO", *_]:
                return b"%1\r\n+server\r\n+redis\r\n"
            case [b"EVAL", ATTACH.source, *_]:
                info = "redis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\n"
                return b"*3\r\n:1\r\n" + bulk("") + bulk(info)
            case [*_, last]:
                return self.answer_to(last.decode())
            case other:
                raise AssertionError(other)

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        issuer = Issuer(1)
        pool = CellConnectionPool(
            f"redis://127.0.0.1:{port}",
            "cell",
            config.L3(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("5s")),
            placement=(0, 0),
            skew_us=1,
            issuer=issuer,
            check=lambda _: None,
            attached=lambda attached: issuer.meet(attached.issuer, attached.now_us),
        )

        async def ask(name: str) -> str:
            connection = await pool.borrow()
            try:
                (reply,) = await connection.run(READ, [name.encode()])
            finally:
                await pool.give_back(connection)
            assert isinstance(reply, bytes)
            return reply.decode()

        yield ask
        await pool.close()


class OfAQueue(OfACell):
    def answer_to(self, name: str) -> bytes:
        return bulk(name)

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Ask]:
        server = RedisServer(f"redis://127.0.0.1:{port}", "queue", Duration.parse("5s"))

        async def ask(name: str) -> str:
            redis: Redis = server.redis
            reply = await server.guarded(redis.get(name))
            assert isinstance(reply, bytes)
            return reply.decode()

        yield ask
        await server.stop()


PROTOCOLS = [
    OfTheOrigin(),
    OfPeers(),
    OfTheSdk(),
    OfTheSyncSdk(),
    OfTheReceiverOfSpans(),
    OfMemcached(),
    OfMemcachedWrites(),
    OfACell(),
    OfAQueue(),
]
FAILURES = (OriginError, TierError, cachesvc_client.CacheError, NotTakenError)


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: type(protocol).__name__)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    chosen: Protocol = request.param
    return chosen


@pytest.fixture
def server(protocol: Protocol) -> Iterator[TalkativeServer]:
    with talkative(protocol.answer) as running:
        yield running


@pytest.fixture
async def ask(
    protocol: Protocol, server: TalkativeServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ask]:
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 5.0)  # or a slow machine looks like a silent peer
    async with protocol.client(server.port) as asking:
        yield asking


@pytest.fixture(params=[False, True], ids=["unread", "read"])
def is_read(request: pytest.FixtureRequest) -> bool:
    """True if the event loop reads what has arrived before the next request is made."""
    return bool(request.param)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def own_or_failure(ask: Ask, name: str) -> str:
    try:
        return await ask(name)
    except FAILURES:
        return name


async def test_without_a_surplus_answer_a_connection_is_kept(ask: Ask, server: TalkativeServer) -> None:
    assert [await ask(name) for name in "abc"] == ["a", "b", "c"]
    assert len(server.connections) == 1


async def test_a_surplus_answer_in_the_packet_of_an_answer(
    ask: Ask, protocol: Protocol, server: TalkativeServer
) -> None:
    assert await ask("z") == "z", "connects, which is an exchange of its own with Redis"
    server.behind = protocol.surplus()
    assert await own_or_failure(ask, "a") == "a"
    assert [await ask("b"), await ask("c")] == ["b", "c"]


async def test_a_surplus_answer_on_an_idle_connection(
    ask: Ask, protocol: Protocol, server: TalkativeServer, is_read: bool
) -> None:
    assert await ask("a") == "a"
    server.say(protocol.surplus())
    await turns(TURNS * is_read)
    assert [await ask("b"), await ask("c")] == ["b", "c"]
    assert len(server.connections) == 2


async def test_a_surplus_answer_in_two_parts_on_an_idle_connection(
    ask: Ask, protocol: Protocol, server: TalkativeServer, is_read: bool
) -> None:
    assert await ask("a") == "a"
    surplus = protocol.surplus()
    server.say(surplus[:9])
    await turns(TURNS * is_read)
    server.say(surplus[9:])
    assert [await ask("b"), await ask("c")] == ["b", "c"]
    assert len(server.connections) == 2


@pytest.mark.parametrize("cut", [1, 4, 9, -6, -1])
async def test_a_surplus_answer_of_which_a_part_comes_with_an_answer(
    ask: Ask, protocol: Protocol, server: TalkativeServer, is_read: bool, cut: int
) -> None:
    surplus = protocol.surplus()
    assert await ask("z") == "z"
    server.behind = surplus[:cut]
    assert await own_or_failure(ask, "a") == "a"
    server.say(surplus[cut:])
    await turns(TURNS * is_read)
    assert [await ask("b"), await ask("c")] == ["b", "c"]


@pytest.mark.parametrize("cut", [1, 4, 9, -6, -1])
async def test_a_surplus_answer_whose_second_part_meets_the_next_request(
    ask: Ask, protocol: Protocol, server: TalkativeServer, cut: int
) -> None:
    surplus = protocol.surplus()
    assert await ask("z") == "z"
    server.behind = surplus[:cut]
    assert await own_or_failure(ask, "a") == "a"
    server.say_at_the_next_request(surplus[cut:])
    assert await own_or_failure(ask, "b") == "b"
    assert [await ask("c"), await ask("d")] == ["c", "d"]


async def test_a_surplus_answer_that_meets_the_next_request_spoils_that_one_alone(
    ask: Ask, protocol: Protocol, server: TalkativeServer
) -> None:
    """No client can tell it from the answer, which then arrives on an idle connection."""
    assert await ask("a") == "a"
    server.say_at_the_next_request(protocol.surplus())
    with contextlib.suppress(*FAILURES, KeyError):
        await ask("b")
    while not server.has_answered:  # noqa: ASYNC110  a thread sets no event of ours
        await asyncio.sleep(0.001)
    assert [await ask("c"), await ask("d")] == ["c", "d"]


@pytest.mark.parametrize("connector", [CleanConnector, CleanConnectorOfTheSdk])
async def test_a_server_that_speaks_first_is_not_heard(
    connector: type[aiohttp.TCPConnector], is_read: bool
) -> None:
    """Over HTTP the client asks first: an answer on a new connection answers nothing."""
    protocol = OfTheOrigin()

    class Slow(connector):  # type: ignore[valid-type, misc]  # one of two classes
        """Gives a new connection out when the server has spoken on it."""

        async def _create_connection(self, *args: Any) -> Any:
            made = await super()._create_connection(*args)
            while not speaker.connections:  # noqa: ASYNC110  a thread sets no event of ours
                await asyncio.sleep(0 if is_read else 0.001)
            await turns(TURNS * is_read)
            return made

    with talkative(protocol.answer) as speaker:
        speaker.greeting = protocol.surplus()
        async with aiohttp.ClientSession(connector=Slow()) as session:
            for _ in range(2):
                with pytest.raises(aiohttp.ClientConnectionError):
                    await session.get(f"http://127.0.0.1:{speaker.port}/a")
                speaker.connections.clear()
