"""The bounds of answers: their bytes, those on their way, and the time to take them."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cachesvc.config.service import Server
from cachesvc.config.topology import Namespace
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.requests import Answer, Outcome, ReadOptions
from cachesvc.model.units import Duration, Size
from cachesvc.web import connections
from cachesvc.web.bytes_in_flight import BytesInFlight
from cachesvc.web.connections import Connections
from cachesvc.web.handlers import batches
from cachesvc.web.portions import Portions, Room
from tests.doubles.clocks import ManualClock
from tests.wire.conftest import LIMITS, Site, read_response, running_site, until

MSGPACK = "application/msgpack"
SMALL = replace(LIMITS, max_answer=Size(1000), max_batch_keys=1000)


async def got(site: Site, keys: Sequence[str], **more: Any) -> list[Any]:
    body = msgspec.msgpack.encode({"keys": keys, **more})
    response = await site.ask("POST", "/v1/pages:get", {"Content-Type": MSGPACK}, body)
    assert response.status == 200, response
    results: list[Any] = msgspec.msgpack.decode(response.body)["results"]
    return results


def outcomes(results: Sequence[Any]) -> str:
    return " ".join(
        one["problem"]["type"].rpartition("/")[2] if one["outcome"] == "error" else one["outcome"]
        for one in results
    )


async def test_an_answer_from_l1_has_so_many_bytes_and_says_what_is_to_be_asked_again() -> None:
    """Five keys, one of them named a thousand times: the request is small, its answer was not."""
    async with running_site(limits=SMALL) as site:
        site.hold("a", b"x" * 400)
        results = await got(site, ["a"] * 1000)
        assert outcomes(results[:4]) == "hit hit answer-full answer-full"
        assert {outcomes([one]) for one in results[2:]} == {"answer-full"}
        assert results[2]["problem"]["retryable"] is True
        assert site.metrics.counts.batch_keys["pages", "get_many", "full"] == 998
        assert site.metrics.counts.batch_keys["pages", "get_many", "error"] == 0


async def test_one_value_fits_whatever_its_size() -> None:
    async with running_site(limits=SMALL) as site:
        site.hold("large", b"x" * 5000)
        site.hold("small", b"s")
        assert outcomes(await got(site, ["large", "small"])) == "hit answer-full"
        assert outcomes(await got(site, ["small", "large"])) == "hit answer-full"
        assert outcomes(await got(site, ["large"])) == "hit"


async def test_what_has_no_room_is_not_read_at_all() -> None:
    """Values beyond L1 come in portions; a lease is granted only for what is in the answer."""
    async with running_site(limits=SMALL) as site:
        keys = [f"k{i}" for i in range(20)]
        for key in keys:
            entry = site.hold(key, b"x" * 300)
            site.reader.answers[key] = Answer(Outcome.STALE, entry, "l2", lease=f"lease of {key}")
        site.reader.l1.clear()
        results = await got(site, keys, lease=True)
        assert outcomes(results[:4]) == "stale stale stale answer-full"
        assert len(site.reader.saw) < len(keys)
        kept = [one["lease"] for one in results if one.get("lease")]
        given_back = [lease for _, lease in site.reader.given_back]
        asked = [key for _, key, _ in site.reader.saw]
        assert sorted([*kept, *given_back]) == sorted(f"lease of {key}" for key in asked)
        assert site.web.in_flight.held == 0


async def test_later_portions_have_the_time_that_is_left() -> None:
    async with running_site(limits=SMALL) as site:
        waits: list[ReadOptions] = []
        get_many = site.reader.get_many

        async def slow(keys: Sequence[Key], options: ReadOptions) -> list[Answer]:
            waits.append(options)
            await asyncio.sleep(0.02)
            return await get_many(keys, options)

        site.reader.get_many = slow  # type: ignore[method-assign, assignment]
        body = msgspec.msgpack.encode({"keys": ["a", "b", "c"], "lease": True, "wait": 1.0})
        headers = {"Content-Type": MSGPACK, "Cachesvc-Timeout": "2s"}
        await site.ask("POST", "/v1/pages:get", headers, body)
        seconds = [(one.wait_seconds, one.timeout_seconds or 0.0) for one in waits]
        assert seconds[0] == (1.0, 2.0)
        assert all(wait < 1.0 and left < 2.0 for wait, left in seconds[1:])
        assert len(seconds) > 1, "values of up to 1000 bytes: one at a time"


def test_the_portions_of_a_namespace_follow_the_sizes_of_its_values() -> None:
    portions, contract = Portions(), Namespace("web", max_value=Size(1 << 20))
    room = 16 << 20
    widths = []
    for largest in (100, 100, 100, 1 << 20, 100, 100):
        widths.append(portions.keys_at_once("pages", contract, room))
        portions.learn("pages", contract, [10, largest])
    assert widths == [16, 128, 1024, 8192, 16, 128]


def test_room_is_left_only_while_what_comes_next_may_fit() -> None:
    clock = ManualClock()
    room = Room(10)
    site_entry = replace(_entry(clock), value=b"x" * 6)
    assert [room.takes(None), room.takes(site_entry), room.is_open, room.takes(site_entry)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert (room.is_open, room.is_short, room.takes(replace(site_entry, value=b"y"))) == (False, True, False)


def _entry(clock: ManualClock) -> Entry:
    return Entry(b"", clock.now_us(), clock.now_us() + SECONDS, 0, 0)


# what peers do not take -------------------------------------------------------------------------

LARGE = 8 << 20


def connected(site: Site) -> socket.socket:
    """A connection whose peer takes little into its own buffers, and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    return sock


async def asked(site: Site, path: str) -> socket.socket:
    sock = connected(site)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", site.port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


async def is_aborted(sock: socket.socket) -> bool:
    """True if the connection ends before the whole answer is read."""
    loop = asyncio.get_running_loop()
    size = 0
    try:
        while piece := await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), 10):
            size += len(piece)
    except ConnectionError:
        pass
    return size < LARGE


async def test_an_answer_that_is_not_taken_has_a_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)
    limits = replace(LIMITS, request_timeout=Duration(SECONDS // 10), least_read_rate=Size(1 << 30))
    async with running_site(limits=limits) as site:
        site.hold("large", b"x" * LARGE)
        with await asked(site, "/v1/pages/large") as sock:
            await until(lambda: site.web.in_flight.held > 0)
            await until(lambda: site.web.data.connections.untaken == 1)
            assert site.web.in_flight.held == 0
            assert await is_aborted(sock)
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert "bytes waits, and its time is over" in line


async def test_so_has_one_on_a_connection_that_is_to_be_closed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Less than 64 KiB in the buffer never pause a transport; its `close` would wait for ever."""
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)
    limits = replace(LIMITS, request_timeout=Duration(SECONDS // 10), least_read_rate=Size(1 << 30))
    async with running_site(limits=limits) as site:
        site.hold("large", b"x" * LARGE)
        sock = connected(site)
        loop = asyncio.get_running_loop()
        with sock:
            await loop.sock_connect(sock, ("127.0.0.1", site.port))
            await loop.sock_sendall(
                sock, b"GET /v1/pages/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            await until(lambda: site.web.data.connections.untaken == 1)
            await until(lambda: site.web.data.connections.open == 0)


async def test_a_peer_that_takes_its_answer_slowly_has_the_time_for_its_size() -> None:
    limits = replace(LIMITS, request_timeout=Duration(SECONDS // 10))
    async with running_site(limits=limits) as site:
        site.hold("large", b"x" * LARGE)
        with await asked(site, "/v1/pages/large") as sock:
            await until(lambda: site.web.in_flight.held > 0)
            await asyncio.sleep(0.7)  # past the request's timeout: 8 MiB have 32 s more
            assert not await is_aborted_within(sock, LARGE)
        await until(lambda: site.web.in_flight.held == 0)


async def is_aborted_within(sock: socket.socket, size: int) -> bool:
    loop = asyncio.get_running_loop()
    while size > 0:
        piece = await asyncio.wait_for(loop.sock_recv(sock, 1 << 20), 10)
        if not piece:
            return True
        size -= len(piece)
    return False


async def test_the_connection_that_has_waited_longest_makes_room() -> None:
    limits = replace(LIMITS, max_bytes_in_flight=Size(2 * LARGE))
    async with running_site(limits=limits) as site:
        site.hold("large", b"x" * LARGE)
        first = await asked(site, "/v1/pages/large")
        await until(lambda: site.web.in_flight.held > 0)
        socks = [first, *[await asked(site, "/v1/pages/large") for _ in range(4)]]
        await until(lambda: site.web.data.connections.untaken >= 2)
        assert site.web.in_flight.held <= site.web.in_flight.most
        assert await is_aborted(first)
        for sock in socks:
            sock.close()
        await until(lambda: site.web.in_flight.held == 0)


class Slow:
    """A connection with an answer that its peer does not take."""

    idle_since = None

    def __init__(self, namespace: str, size: int) -> None:
        self.namespace = namespace
        self.size = size

    def close_idle(self) -> None: ...

    def end_head(self) -> None: ...

    def abort(self) -> None:
        self.size = 0

    def unsent(self) -> int:
        return self.size


async def test_the_namespace_with_most_slow_readers_makes_room() -> None:
    in_flight = BytesInFlight(960, is_shared=True)
    callers = Connections(LIMITS, in_flight)
    quiet, *loud = [Slow("quiet", 300), *(Slow("loud", 200) for _ in range(3))]
    for one in (quiet, *loud):
        callers.waits(one)
    assert in_flight.by_namespace == {"quiet": 300, "loud": 600}
    assert not in_flight.has_room(60, "loud")
    assert in_flight.has_room(60, "other")
    callers.waits(last := Slow("loud", 200))
    await asyncio.sleep(0)
    assert [one.size for one in (quiet, *loud, last)] == [300, 0, 200, 200, 200]
    for one in (quiet, *loud, last):
        callers.taken(one)
    assert (in_flight.held, in_flight.by_namespace) == (0, {})
    callers.stop()


async def test_an_answer_that_waits_counts_for_its_namespace() -> None:
    async with running_site() as site:
        site.hold("large", b"x" * LARGE)
        with await asked(site, "/v1/pages/large"):
            await until(lambda: site.web.in_flight.by_namespace.get("pages", 0) > 0)
        await until(lambda: not site.web.in_flight.by_namespace)


async def test_without_room_a_large_answer_is_refused_and_a_small_one_is_not() -> None:
    async with running_site(limits=replace(SMALL, max_answer=Size(1 << 20))) as site:
        site.hold("large", b"x" * 100_000)
        site.hold("small", b"s")
        site.web.in_flight.held = site.web.in_flight.most
        body = msgspec.msgpack.encode({"keys": ["large"]})
        refused = await site.ask("POST", "/v1/pages:get", {"Content-Type": MSGPACK}, body)
        assert (refused.status, b"overloaded" in refused.body) == (503, True)
        assert outcomes(await got(site, ["small", "missing"])) == "hit miss"
        assert site.web.in_flight.refused == 1
        site.web.in_flight.held = 0


@pytest.mark.parametrize("tier", ["l1", "l2"])
async def test_an_answer_that_would_not_fit_any_more_is_refused_before_it_is_encoded(tier: str) -> None:
    """Wherever its values come from, also if L1 keeps none of them; by its size in its own encoding."""
    limits = replace(SMALL, max_answer=Size(1 << 20), max_bytes_in_flight=Size(1 << 21))
    async with running_site(limits=limits) as site:
        entry = site.hold("large", b"x" * 600_000)
        if tier == "l2":
            site.reader.answers["large"] = Answer(Outcome.HIT, entry, tier)
            site.reader.l1.clear()
        site.web.in_flight.held = (1 << 21) - 700_000
        assert outcomes(await got(site, ["large"])) == "hit"
        body, json = msgspec.json.encode({"keys": ["large"]}), {"Content-Type": "application/json"}
        refused = await site.ask("POST", "/v1/pages:get", json, body)
        assert (refused.status, b"overloaded" in refused.body) == (503, True)
        site.web.in_flight.held = 0
        assert (await site.ask("POST", "/v1/pages:get", json, body)).status == 200


async def test_values_are_asked_for_only_while_there_is_room_for_them() -> None:
    """Many callers at once, before any value has come; all are answered in the end."""
    limits = replace(LIMITS, max_answer=Size(1 << 20), max_bytes_in_flight=Size(1 << 22))
    async with running_site(limits=limits) as site:
        in_flight, reader = site.web.in_flight, site.reader
        value = Entry(b"x" * (1 << 18), 1, 2)
        keys = [[f"{caller}-{n}" for n in range(4)] for caller in range(60)]
        reader.answers |= {key: Answer(Outcome.HIT, value, "l3") for some in keys for key in some}
        await got(site, keys[0])  # how large values are is known from now on
        reader.saw.clear()
        reader.hangs = asyncio.Event()
        asking = [asyncio.create_task(got(site, some)) for some in keys]
        await until(lambda: in_flight.expected > 3 << 20)
        assert in_flight.expected <= in_flight.most
        assert len(reader.saw) <= 16
        reader.hangs.set()
        for task in asking:
            assert outcomes(await task) == "hit hit hit hit"
        assert (in_flight.expected, in_flight.refused) == (0, 0)
        await until(lambda: in_flight.held == 0)


async def test_values_that_find_no_room_in_time_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PATIENCE_SECONDS", 0.05)
    limits = replace(LIMITS, max_answer=Size(1 << 20), max_bytes_in_flight=Size(1 << 20))
    async with running_site(limits=limits) as site:
        site.reader.answers["a"] = Answer(Outcome.HIT, Entry(b"x" * (1 << 18), 1, 2), "l3")
        assert outcomes(await got(site, ["a"])) == "hit"
        site.web.in_flight.expect(1 << 20)
        body = msgspec.msgpack.encode({"keys": ["a"]})
        refused = await site.ask("POST", "/v1/pages:get", {"Content-Type": MSGPACK}, body)
        assert (refused.status, b"overloaded" in refused.body) == (503, True)
        assert site.web.in_flight.refused == 1
        site.web.in_flight.came(1 << 20)
        assert outcomes(await got(site, ["a"])) == "hit"


async def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    in_flight = BytesInFlight(1)
    in_flight.expect(1)
    asking = [asyncio.create_task(in_flight.turn(5)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    in_flight.came(1)
    asking[1].cancel()
    assert await asking[2]
    assert not await in_flight.turn(0.001)


async def test_the_pieces_of_a_body_are_counted_while_it_is_on_its_way() -> None:
    limits = replace(LIMITS, max_body=Size(1 << 20), max_bytes_in_flight=Size(1 << 24))
    async with running_site(limits=limits) as site:
        head = b"PUT /v1/pages/k HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head + b"x" * 300_000)
        await until(lambda: site.web.in_flight.held > 100_000)
        site.web.in_flight.held += site.web.in_flight.most
        writer.write(b"x" * 300_000)
        response = await read_response(reader, "PUT")
        assert (response.status, b"overloaded" in response.body) == (503, True)
        site.web.in_flight.held -= site.web.in_flight.most
        assert site.web.in_flight.held == 0
        writer.close()


def test_the_limits_have_a_sense() -> None:
    assert Server().max_answer <= Server().max_bytes_in_flight
