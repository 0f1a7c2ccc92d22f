"""Certificates that expired, name another host or have an unknown authority; renewed ones.

On a real redis-server, a real memcached and an HTTPS origin. Each is refused with what is wrong and
what to do, and never waited for.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cachesvc.app.instance import App
from cachesvc.changes.redis.changes import RedisChanges
from cachesvc.config.logins import RedisLogin
from cachesvc.config.service import L2, L3, Server, Service
from cachesvc.config.tls import ClientTls
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Origin, Region, Topology
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError, TierError
from cachesvc.model.units import Duration
from cachesvc.tiers.l2.memcached import MemcachedTier
from cachesvc.tiers.l2.memcached_access import access_of
from cachesvc.tiers.l3.contract import Read
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.origin.http import HttpLoader
from cachesvc.tiers.redis_connections import Access, Login
from cachesvc.tiers.tls import Certificates
from tests.doubles.certificates import PAST, Authority
from tests.doubles.raw_origin import RawOrigin
from tests.doubles.servers import free_port, memcached_server, redis_server

KEY = Key.of("docs", "a")
PATIENT = L3(connect_timeout=Duration.parse("2s"), timeout=Duration.parse("2s"))
CLOCK = SystemClock()

Exchange = Callable[[], Awaitable[object]]
"""One exchange with a server. Raises the error that the product raises."""


class Bench:
    """A server of one kind with TLS, and what the product has to reach it with."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        self.authority = Authority(directory)
        self.certificates = Certificates(Service(tls=ClientTls(ca=self.authority.file)))
        context = self.certificates.clients("redis")
        assert context is not None
        self.context = context

    def issue(self, fault: str) -> None:
        """Puts a certificate in place that has this fault; none, if the text is empty."""
        authority = Authority(self.directory, "unknown") if fault == "unknown authority" else self.authority
        names = ("other.test",) if fault == "other name" else ()
        authority.issue(*names, left=PAST if fault == "expired" else None)

    @property
    def files(self) -> tuple[str, str]:
        return str(self.directory / "server.pem"), str(self.directory / "server.key")


FAULTS = {
    "expired": "TLS: its certificate, or that of its authority, has expired; renew it at that server",
    "other name": "TLS: its certificate is for another name",
    "unknown authority": "TLS: its certificate is of an authority that tls.ca does not have",
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@contextmanager
def redis_with_tls(bench: Bench, *more: str) -> Iterator[tuple[str, str]]:
    """Yields the URL with TLS, and that of the administrator."""
    (cert, key), port = bench.files, free_port()
    words = ["--tls-port", str(port), "--tls-cert-file", cert, "--tls-key-file", key]
    with redis_server(
        *words, "--tls-ca-cert-file", bench.authority.file, "--tls-auth-clients", "no", *more
    ) as up:
        yield f"rediss://localhost:{port}/0", up.redis_url


@contextmanager
def memcached_with_tls(bench: Bench, *more: str) -> Iterator[str]:
    cert, key = bench.files
    with memcached_server("-Z", "-o", f"ssl_chain_cert={cert},ssl_key={key}", *more, port_only=True) as up:
        yield f"tls:localhost:{up.port}"


@asynccontextmanager
async def cell_exchange(bench: Bench) -> AsyncIterator[Exchange]:
    with redis_with_tls(bench) as (url, _):
        cell = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=Access(bench.context))

        async def exchange() -> object:
            (reply,) = await cell.read_many([Read(KEY)])
            return raised(reply)

        yield exchange
        await cell.stop()


@asynccontextmanager
async def queue_exchange(bench: Bench) -> AsyncIterator[Exchange]:
    with redis_with_tls(bench) as (url, _):
        changes = RedisChanges(url, "eu", access=Access(bench.context))
        yield lambda: changes.completion()
        await changes.stop()


def memcached_tier(bench: Bench, address: str) -> MemcachedTier:
    settings = L2(timeout=Duration.parse("2s"))
    return MemcachedTier("m1", address, settings, CLOCK, access=access_of(settings, bench.context))


def raised(found: object) -> object:
    """The answer. Raises it if it is an error."""
    if isinstance(found, TierError):
        raise found
    return found


@asynccontextmanager
async def memcached_exchange(bench: Bench) -> AsyncIterator[Exchange]:
    with memcached_with_tls(bench) as address:
        tier = memcached_tier(bench, address)
        await tier.start()

        async def exchange() -> object:
            (found,) = await tier.get_many([KEY])
            return raised(found)

        yield exchange
        await tier.stop()


@asynccontextmanager
async def memcached_look(bench: Bench) -> AsyncIterator[Exchange]:
    with memcached_with_tls(bench) as address:
        tier = memcached_tier(bench, address)

        async def exchange() -> object:
            return raised(await tier.look(KEY))

        yield exchange


@asynccontextmanager
async def origin_exchange(bench: Bench) -> AsyncIterator[Exchange]:
    async with AsyncExitStack() as stack:
        origin = RawOrigin()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*bench.files)
        server = await asyncio.start_server(origin.serve, "127.0.0.1", 0, ssl=context)
        stack.callback(server.close)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/{{key}}"
        loader = HttpLoader("docs", Origin(url), clock=CLOCK, tls=bench.context)
        await loader.start()
        stack.push_async_callback(loader.stop)
        yield lambda: loader.load(KEY, known=None, timeout_seconds=5)


EXCHANGES = {
    "cell": cell_exchange,
    "queue": queue_exchange,
    "memcached": memcached_exchange,
    "memcached, a look": memcached_look,
    "origin": origin_exchange,
}


@pytest.mark.parametrize("kind", EXCHANGES)
async def test_a_good_certificate_is_taken(bench: Bench, kind: str) -> None:
    bench.issue("")
    async with EXCHANGES[kind](bench) as exchange:
        await exchange()


async def test_an_origin_that_is_refused_is_a_trouble_until_it_is_taken(bench: Bench) -> None:
    bench.issue("expired")
    async with AsyncExitStack() as stack:
        origin, context = RawOrigin(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*bench.files)
        server = await asyncio.start_server(origin.serve, "127.0.0.1", 0, ssl=context)
        stack.callback(server.close)
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/{{key}}"
        loader = HttpLoader("docs", Origin(url), clock=CLOCK, tls=bench.context)
        await loader.start()
        stack.push_async_callback(loader.stop)
        with pytest.raises(OriginError):
            await loader.load(KEY, known=None, timeout_seconds=5)
        assert FAULTS["expired"] in loader.trouble
        bench.issue("")
        context.load_cert_chain(*bench.files)
        await loader.load(KEY, known=None, timeout_seconds=5)
        assert loader.trouble == ""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", EXCHANGES)
async def test_a_bad_certificate_is_refused_at_once_and_the_error_says_what_to_do(
    bench: Bench, kind: str, fault: str
) -> None:
    bench.issue(fault)
    async with EXCHANGES[kind](bench) as exchange:
        with pytest.raises((TierError, OriginError)) as refused:
            await asyncio.wait_for(exchange(), 5)
        assert FAULTS[fault] in str(refused.value)


async def test_a_plain_server_is_told_from_one_with_tls(bench: Bench) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/{{key}}"
    loader = HttpLoader("docs", Origin(url), clock=CLOCK, tls=bench.context)
    await loader.start()
    with pytest.raises(OriginError, match="it does not speak TLS at this port"):
        await loader.load(KEY, known=None, timeout_seconds=5)
    await loader.stop()
    server.close()


async def test_a_client_certificate_is_shown_and_a_renewed_one_after_it(bench: Bench) -> None:
    """The server asks for certificates; the client's files change under the product."""
    bench.issue("")
    mine = bench.authority.issue("me.test", file="mine")
    tls = ClientTls(ca=bench.authority.file, cert=mine.cert, key=mine.key)
    certificates = Certificates(Service(tls=tls))
    context = certificates.clients("redis")
    with redis_with_tls(bench, "--tls-auth-clients", "yes") as (url, _):
        cell = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=Access(context))
        assert not isinstance((await cell.read_many([Read(KEY)]))[0], TierError)
        Authority(bench.directory, "stranger").issue("me.test", file="mine")
        await asyncio.to_thread(certificates.look)
        assert not isinstance((await cell.read_many([Read(KEY)]))[0], TierError)  # the standing connection
        assert cell.statistics().connects == 1
        await cell.stop()
        other = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=Access(context))
        assert isinstance((await other.read_many([Read(KEY)]))[0], TierError)
        await other.stop()


async def test_a_password_file_that_changes_is_read_for_the_next_connection(bench: Bench) -> None:
    bench.issue("")
    file = bench.directory / "password"
    file.write_text("first\n")
    access = Access(bench.context, Login(RedisLogin(user="me", password_file=str(file))))
    with redis_with_tls(bench) as (url, admin_url), Redis.from_url(admin_url) as admin:
        admin.execute_command("ACL", "SETUSER", "me", "on", ">first", "~*", "+@all")
        for password in ("first", "second"):
            file.write_text(f"{password}\n")
            admin.execute_command("ACL", "SETUSER", "me", f">{password}")
            cell = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=access)
            assert not isinstance((await cell.read_many([Read(KEY)]))[0], TierError)
            await cell.stop()
            admin.execute_command("ACL", "SETUSER", "me", f"<{password}")
        refused = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=access)
        (reply,) = await refused.read_many([Read(KEY)])
        assert "login: " in str(reply)
        assert "look at the user and password" in str(reply)
        assert "second" not in str(reply)
        await refused.stop()


@pytest.mark.parametrize("rules", [("~*", "+@connection"), ("~other:*", "+@all"), ("~*", "+@all", "-info")])
async def test_a_user_without_the_commands_or_keys_is_told(bench: Bench, rules: tuple[str, ...]) -> None:
    bench.issue("")
    access = Access(bench.context, Login(RedisLogin(user="me", password="word")))
    with redis_with_tls(bench) as (url, admin_url), Redis.from_url(admin_url) as admin:
        admin.execute_command("ACL", "SETUSER", "me", "on", ">word", *rules)
        cell = RedisCell("c1", url, PATIENT, 20_000, CLOCK, access=access)
        (reply,) = await cell.read_many([Read(KEY)])
        assert "login: " in str(reply)
        assert "the commands and keys that docs/operate.md lists" in str(reply)
        await cell.stop()


@pytest.mark.parametrize("encrypted", [False, True])
async def test_memcached_is_logged_in_to_with_the_line_of_its_own_file(bench: Bench, encrypted: bool) -> None:
    bench.issue("")
    file = bench.directory / "users"
    file.write_text("me:a-word\n")
    entry = Entry(b"v", CLOCK.now_us(), CLOCK.now_us() + 60_000_000)
    cert, key = bench.files
    words = ("-Z", "-o", f"ssl_chain_cert={cert},ssl_key={key}") if encrypted else ()
    with memcached_server("-Y", str(file), *words, port_only=True) as server:
        address = f"{'tls:' if encrypted else ''}localhost:{server.port}"

        async def stored(**auth: Any) -> Any:
            settings = L2(timeout=Duration.parse("2s"), **auth)
            tier = MemcachedTier("m1", address, settings, CLOCK, access=access_of(settings, bench.context))
            await tier.start()
            try:
                failures = await tier.set_many([(KEY, entry)])
                (found,) = await tier.get_many([KEY])
                assert failures or (await tier.look(KEY)) == found
                return failures or found
            finally:
                await tier.stop()

        assert isinstance(await stored(auth_file=str(file)), Entry)
        assert isinstance(await stored(auth="me:a-word"), Entry)
        (refused,) = await stored(auth="me:another")
        assert "login: it says" in str(refused)
        assert "another" not in str(refused)
        (unknown,) = await stored()
        assert isinstance(unknown, TierError)


async def test_a_certificate_that_ends_soon_is_told(bench: Bench) -> None:
    mine = bench.authority.issue("me.test", file="mine", left=timedelta(days=3))
    certificates = Certificates(Service(tls=ClientTls(cert=mine.cert, key=mine.key)))
    certificates.clients("origins")
    (trouble,) = certificates.troubles()
    assert (
        trouble
        == f"the certificate in {mine.cert} ends in 3 days: put a renewed one there, no restart is needed"
    )


@pytest.fixture
def app_with_bad_servers(bench: Bench) -> Iterator[App]:
    """An instance with an expired certificate at its cell and its memcached.

    Its queue refuses the password."""
    bench.issue("expired")
    with redis_with_tls(bench) as (cell, _), memcached_with_tls(bench) as memcached:
        good = Bench(bench.directory / "good")
        good.issue("")
        with redis_with_tls(good) as (queue, _):
            both = bench.directory / "both.pem"
            both.write_text(Path(bench.authority.file).read_text() + Path(good.authority.file).read_text())
            topology = Topology(
                version=1,
                regions={
                    "eu": Region(
                        queue.replace("://", "://nobody:a-word@"),
                        {"m1": MemcachedServer(memcached)},
                        queue_on_disk=False,
                    )
                },
                cells={"c1": Cell("eu", cell)},
                namespaces={"pages": Namespace("web")},
            )
            tls = ClientTls(ca=str(both))
            yield App(Service(region="eu", instance="a", server=Server(port=0), tls=tls), topology)


async def test_an_instance_says_what_is_wrong_with_each_of_its_servers(app_with_bad_servers: App) -> None:
    app = app_with_bad_servers
    await app.start()
    try:
        expired = "TLS: its certificate, or that of its authority, has expired; renew it at that server"

        def told() -> Any:
            return app.readiness()[1]["troubles"]

        async with asyncio.timeout(20):
            while len(told()) < 3 or not all(": " in one for one in told()):
                await app.remote.l2.ask(Key.of("pages", "a"))
        queue, cell, memcached = told()
        assert cell == f"cell c1 does not answer: {expired}"
        assert memcached == f"memcached m1 does not answer: {expired}"
        assert queue.startswith("the queue of eu does not answer: login: ")
        assert "a-word" not in queue
    finally:
        await app.stop()
