"""TLS of the listening port: handshakes, their limits, client certificates, renewed files."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec.structs import replace

from cachesvc.config.callers import Callers, NamedCaller
from cachesvc.config.service import Service
from cachesvc.config.tls import ListenerTls
from cachesvc.model.clock import SECONDS
from cachesvc.model.units import Duration, Size
from cachesvc.tiers.tls import Certificates
from cachesvc.web import connections
from cachesvc.web.handshakes import Handshake, Handshakes
from tests.doubles.certificates import PAST, Authority, Certificate
from tests.wire.conftest import LIMITS, Response, Site, read_response, running_site, until

HIT = b"GET /v1/pages/k HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def own(authority: Authority) -> Certificate:
    """The service's certificate."""
    return authority.issue()


class Encrypted:
    """A site over TLS, and a caller that believes its authority."""

    def __init__(self, site: Site, certificates: Certificates, authority: Authority) -> None:
        self.site = site
        self.certificates = certificates
        self._authority = authority

    @property
    def handshakes(self) -> Handshakes:
        (found,) = self.site.web.handshakes.values()
        return found

    async def connect(
        self, *, of: Authority | None = None, shows: Certificate | None = None, **settings: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = (of or self._authority).client_context(shows)
        return await asyncio.open_connection("localhost", self.site.port, ssl=context, **settings)

    async def hit(self, **settings: Any) -> Response:
        """A hit on a connection of its own."""
        reader, writer = await self.connect(**settings)
        try:
            writer.write(HIT)
            return await read_response(reader, "GET")
        finally:
            writer.close()


@asynccontextmanager
async def encrypted(
    authority: Authority,
    own: Certificate,
    *,
    request_timeout: Duration = LIMITS.request_timeout,
    least_read_rate: Size = LIMITS.least_read_rate,
    **tls: Any,
) -> AsyncIterator[Encrypted]:
    block = ListenerTls(cert=own.cert, key=own.key, **tls)
    times = {"request_timeout": request_timeout, "least_read_rate": least_read_rate}
    limits = replace(LIMITS, tls=block, max_connections=8, **times)
    certificates = Certificates(Service(server=limits))
    context = certificates.listener(limits.tls, "server.tls")
    async with running_site(limits=limits, tls=context) as site:
        site.hold("k", b"K")
        yield Encrypted(site, certificates, authority)


async def test_requests_are_answered_over_tls_also_when_they_come_with_the_handshake(
    authority: Authority, own: Certificate
) -> None:
    async with encrypted(authority, own) as there:
        reader, writer = await there.connect()
        for _ in range(3):
            writer.write(HIT * 2)
            assert [(await read_response(reader, "GET")).body for _ in range(2)] == [b"K", b"K"]
        link = writer.get_extra_info("ssl_object")
        assert link.version() == "TLSv1.3"
        writer.close()
        assert there.handshakes.done == 1


async def test_a_large_value_and_a_large_body_pass(authority: Authority, own: Certificate) -> None:
    value = bytes(range(256)) * 4000
    async with encrypted(authority, own) as there:
        there.site.hold("large", value)
        reader, writer = await there.connect()
        writer.write(HIT.replace(b"/k ", b"/large "))
        assert (await read_response(reader, "GET")).body == value
        put = b"PUT /v1/pages/new HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + b"v" * 900
        writer.write(put)
        assert (await read_response(reader, "PUT")).status == 204
        writer.close()


async def test_tls_1_1_is_refused(authority: Authority, own: Certificate) -> None:
    context = authority.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with encrypted(authority, own) as there:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("localhost", there.site.port, ssl=context)
        await until(lambda: there.handshakes.other == 1)


async def test_plain_http_on_the_port_is_closed_and_counted(authority: Authority, own: Certificate) -> None:
    async with encrypted(authority, own) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
        writer.write(HIT)
        assert b"K" not in await reader.read()  # an alert at most, and then the end
        writer.close()
        assert (there.handshakes.plain, there.handshakes.done) == (1, 0)
        await until(lambda: there.site.web.data.connections.open == 0)
        assert (await there.hit()).body == b"K"


async def test_a_slow_handshake_is_counted_as_a_connection_and_ends_in_time(
    authority: Authority, own: Certificate
) -> None:
    async with encrypted(authority, own, handshake_timeout=Duration.parse("50ms")) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
        await until(lambda: there.site.web.data.connections.open == 1)
        assert await reader.read() == b""
        assert there.handshakes.late == 1
        await until(lambda: there.site.web.data.connections.open == 0)
        writer.close()


async def test_handshakes_that_wait_make_room_for_callers(authority: Authority, own: Certificate) -> None:
    async with encrypted(authority, own) as there:
        waiting = [await asyncio.open_connection("127.0.0.1", there.site.port) for _ in range(8)]
        await until(lambda: there.site.web.data.connections.open == 8)
        assert (await there.hit()).body == b"K"
        assert there.site.web.data.connections.refused == 0
        assert there.site.web.data.connections.closed_idle >= 1
        assert await waiting[0][0].read() == b""  # the one that has shaken hands for longest
        for _, writer in waiting:
            writer.close()


async def test_a_caller_that_leaves_during_the_handshake_is_counted(
    authority: Authority, own: Certificate
) -> None:
    async with encrypted(authority, own) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
        await until(lambda: there.site.web.data.connections.open == 1)
        writer.transport.abort()
        await until(lambda: there.site.web.data.connections.open == 0)
        assert (there.handshakes.left, there.handshakes.running) == (1, set())


async def test_a_stop_ends_handshakes(authority: Authority, own: Certificate) -> None:
    async with encrypted(authority, own) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
        await until(lambda: there.site.web.data.connections.open == 1)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("asks", ["optional", "required"])
async def test_a_callers_certificate_is_checked_and_can_be_read(
    tmp_path: Path, authority: Authority, own: Certificate, asks: str
) -> None:
    mine = authority.issue("checkout.test", file="mine")
    async with encrypted(authority, own, ca=authority.file, client_certificates=asks) as there:
        seen: list[Any] = []
        server: Any = there.site.web.data._listener._runner
        answer = server.server.request_handler

        async def noting(request: Any) -> Any:
            seen.append(request.transport.get_extra_info("peercert"))
            return await answer(request)

        server.server.request_handler = noting
        assert (await there.hit(shows=mine)).body == b"K"
        assert seen[0]["subjectAltName"] == (("DNS", "checkout.test"),)
        if asks == "optional":
            assert (await there.hit()).body == b"K"
            assert not seen[1]


async def test_a_callers_certificate_shows_who_it_is_until_its_end(
    authority: Authority, own: Certificate
) -> None:
    mine = authority.issue("checkout.test", file="mine", left=timedelta(days=1))
    other = authority.issue("other.test", file="other")
    async with encrypted(authority, own, ca=authority.file, client_certificates="optional") as there:
        checkout = NamedCaller(("read:pages",), certificates=("checkout.test",))
        there.site.web.door.take(Callers({"checkout": checkout}))
        assert (await there.hit()).status == 401
        assert (await there.hit(shows=other)).status == 401
        reader, writer = await there.connect(shows=mine)
        writer.write(HIT)
        assert (await read_response(reader, "GET")).body == b"K"
        writer.write(HIT.replace(b"/pages/", b"/users/"))
        refused = await read_response(reader, "GET")
        assert (refused.status, b"checkout has not the scope read:users" in refused.body) == (403, True)
        there.site.clock.advance(seconds=100 * 365 * 86_400)
        writer.write(HIT)
        assert (await read_response(reader, "GET")).status == 401
        writer.close()


@pytest.mark.parametrize("shown", ["none", "expired", "of another authority"])
async def test_a_caller_without_a_good_certificate_is_refused(
    tmp_path: Path, authority: Authority, own: Certificate, shown: str
) -> None:
    other = Authority(tmp_path, "other")
    shows = {
        "none": None,
        "expired": authority.issue("x.test", file="x", left=PAST),
        "of another authority": other.issue("x.test", file="y"),
    }[shown]
    async with encrypted(authority, own, ca=authority.file, client_certificates="required") as there:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await there.hit(shows=shows)
        await until(lambda: there.handshakes.certificate == 1)
        assert there.handshakes.done == 0


async def test_renewed_files_are_used_for_new_connections_and_no_old_one_is_dropped(
    tmp_path: Path, authority: Authority, own: Certificate
) -> None:
    next_authority = Authority(tmp_path, "next")
    async with encrypted(authority, own) as there:
        reader, writer = await there.connect()
        writer.write(HIT)
        assert (await read_response(reader, "GET")).body == b"K"
        next_authority.issue()  # over the same files
        await asyncio.to_thread(there.certificates.look)
        assert there.certificates.renewals == 1
        with pytest.raises(ssl.SSLCertVerificationError):
            await there.hit()
        assert (await there.hit(of=next_authority)).body == b"K"
        writer.write(HIT)
        assert (await read_response(reader, "GET")).body == b"K"
        writer.close()


async def test_renewed_authorities_hold_for_callers_and_former_ones_do_not(
    tmp_path: Path, authority: Authority, own: Certificate
) -> None:
    clients = Authority(tmp_path, "clients")
    before = clients.issue("a.test", file="a")
    async with encrypted(authority, own, ca=clients.file, client_certificates="required") as there:
        assert (await there.hit(shows=before)).body == b"K"
        after = Authority(tmp_path, "clients").issue("b.test", file="b")  # over the same file
        await asyncio.to_thread(there.certificates.look)
        assert (await there.hit(shows=after)).body == b"K"
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await there.hit(shows=before)


def test_all_of_it_holds_on_uvloop(authority: Authority, own: Certificate) -> None:
    """uvloop may read from a connection before its handshake can begin."""

    async def exchanges() -> None:
        async with encrypted(authority, own) as there:
            together = [there.hit() for _ in range(6)]
            assert [answer.body for answer in await asyncio.gather(*together)] == [b"K"] * 6
            reader, writer = await there.connect()
            for _ in range(3):
                writer.write(HIT * 2)
                assert [(await read_response(reader, "GET")).body for _ in range(2)] == [b"K", b"K"]
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
            writer.write(HIT)
            assert b"K" not in await reader.read()
            await until(lambda: there.site.web.data.connections.open == 0)
            counts = there.handshakes
            assert (counts.done, counts.plain, counts.other) == (7, 1, 0)
        async with encrypted(authority, own, handshake_timeout=Duration.parse("50ms")) as there:
            reader, writer = await asyncio.open_connection("127.0.0.1", there.site.port)
            assert await reader.read() == b""
            assert there.handshakes.late == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchanges())


async def test_a_request_whose_first_bytes_were_read_already_is_served(
    authority: Authority, own: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Handshake.connection_made

    def late(self: Handshake, transport: asyncio.BaseTransport) -> None:
        asyncio.get_running_loop().call_later(0.02, made, self, transport)

    monkeypatch.setattr(Handshake, "connection_made", late)
    async with encrypted(authority, own) as there:
        assert (await there.hit()).body == b"K"


LARGE = 8 << 20


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_answer_that_is_not_taken_is_counted_and_has_a_deadline(
    authority: Authority,
    own: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    takes: bool,
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """It waits below TLS, which does not tell that it does."""
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.01)

    rate = Size(LARGE // 10 if takes else 1 << 30)
    slow: dict[str, Any] = {"request_timeout": Duration(SECONDS // 10), "least_read_rate": rate}

    async def exchange() -> None:
        async with encrypted(authority, own, **slow) as there:
            web = there.site.web
            callers = web.data.connections
            there.site.hold("large", b"x" * LARGE)
            reader, writer = await there.connect(limit=1 << 10)
            writer.write(HIT.replace(b"/k ", b"/large "))
            await until(lambda: web.in_flight.held > 0)
            if takes:
                assert len((await read_response(reader, "GET")).body) == LARGE
                await until(lambda: web.in_flight.held == 0)
                assert (callers.untaken, callers.open) == (0, 1)
            else:
                await until(lambda: callers.untaken == 1)
                await until(lambda: callers.open == 0)
                assert web.in_flight.held == 0
            writer.transport.abort()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(exchange())
