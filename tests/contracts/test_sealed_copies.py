"""Copies on a real memcached: nothing is answered that was written there without a key.

Keys can be replaced while instances run.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
from pymemcache.client.base import Client

from cachesvc.app.instance import App
from cachesvc.config.service import L2, Server, Service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Region, Topology
from cachesvc.model.clock import SECONDS, SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.units import Duration
from cachesvc.telemetry.metrics import polled
from cachesvc.tiers import envelope
from cachesvc.tiers.l2.memcached import UNSEALED_SECONDS, MemcachedTier, wire_name
from cachesvc.tiers.seal import SEAL_BYTES, Seal
from tests.doubles.servers import RealServer, memcached_server, redis_server
from tests.doubles.waiting import until

PATIENT = L2(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("5s"))
KEYS = [Key.of("pages", f"{{ws-{number}}}:block") for number in range(8)]
OLD, NEW, FOREIGN = (bytes(range(start, start + 32)) for start in (0, 32, 64))


class Turned(SystemClock):
    """The machine's clock and what it was turned by."""

    ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


CLOCK = Turned()


async def put(attacker: Client, key: Key, data: bytes) -> None:
    await asyncio.to_thread(attacker.set, wire_name(key.id), data, noreply=False)


def entry(value: bytes) -> Entry:
    now = CLOCK.now_us()
    return Entry(value, now, now + 600 * SECONDS)


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with memcached_server() as server:
        yield server


@pytest.fixture
def attacker(server: RealServer) -> Iterator[Client]:
    """Somebody who reaches the server, reads every copy and writes what they like."""
    client = Client(server.address)
    client.flush_all(noreply=False)
    yield client
    client.close()


class Holders(NamedTuple):
    """Tiers of instances that have these keys, the one that seals first."""

    old: MemcachedTier
    both: MemcachedTier
    turned: MemcachedTier
    new: MemcachedTier
    none: MemcachedTier


@pytest.fixture
async def holders(server: RealServer, attacker: Client) -> AsyncIterator[Holders]:
    def holder(*keys: bytes) -> MemcachedTier:
        return MemcachedTier("mc-0", server.address, PATIENT, CLOCK, seal=Seal(keys) if keys else None)

    async with AsyncExitStack() as stack:
        holders = Holders(holder(OLD), holder(OLD, NEW), holder(NEW, OLD), holder(NEW), holder())
        for tier in holders:
            await tier.start()
            stack.push_async_callback(tier.stop)
        yield holders


async def test_a_key_is_replaced_while_instances_run(holders: Holders) -> None:
    """The old key seals, both are known, the new one seals, the old one is gone."""
    written = dict(zip(holders._fields, KEYS, strict=False))
    held = {name: entry(name.encode()) for name in written}
    for name, key in written.items():
        assert not await getattr(holders, name).set_many([(key, held[name])])
    taken = {
        (reader, writer)
        for reader in holders._fields
        for writer, key in written.items()
        if await getattr(holders, reader).get_many([key]) == [held[writer]]
    }
    of_old, of_new = {"old", "both"}, {"turned", "new"}
    assert taken == {
        *(("old", writer) for writer in of_old),
        *(("both", writer) for writer in of_old | of_new),
        *(("turned", writer) for writer in of_old | of_new),
        *(("new", writer) for writer in of_new),
        ("none", "none"),
    }


def forgeries(copies: dict[Key, bytes], value: Entry) -> dict[str, bytes]:
    """Returns what somebody without a key may put under the name of the first key."""
    own, other = copies[KEYS[0]], copies[KEYS[1]]
    flipped = bytearray(own)
    flipped[own.index(b"value")] ^= 1
    return {
        "a flipped bit": bytes(flipped),
        "the copy of another key": other,
        "its value under the seal of another": own[:-SEAL_BYTES] + other[-SEAL_BYTES:],
        "a seal that was cut": own[:-1],
        "no seal": own[:-SEAL_BYTES],
        "a seal of zeros": own[:-SEAL_BYTES] + bytes(SEAL_BYTES),
        "an envelope with a checksum": envelope.pack(KEYS[0], value),
        "the seal of a foreign key": Seal([FOREIGN]).pack(KEYS[0], value),
        "something else": b"\x80\x04not ours",
        "nothing": b"",
    }


@pytest.mark.parametrize("kind", forgeries(dict.fromkeys(KEYS, b"\xc5\x02value"), entry(b"")))
async def test_a_forgery_is_a_miss_that_is_counted(holders: Holders, attacker: Client, kind: str) -> None:
    tier, values = holders.turned, [entry(b"value %d" % number) for number in range(3)]
    await tier.set_many(list(zip(KEYS, values, strict=False)))
    copies = {key: await asyncio.to_thread(attacker.get, wire_name(key.id)) for key in KEYS[:2]}
    await put(attacker, KEYS[0], forgeries(copies, values[0])[kind])
    assert not tier.has_unsealed()
    for _ in range(2):
        assert await tier.get_many(KEYS[:4]) == [None, values[1], values[2], None]
    assert await tier.look(KEYS[0]) is None
    assert await tier.look(KEYS[1]) == values[1]
    statistics = tier.statistics()
    assert (statistics.unsealed, statistics.damaged, statistics.misses, statistics.hits) == (2, 0, 4, 4)
    assert tier.has_unsealed()
    # The key's next copy heals it.
    await tier.set_many([(KEYS[0], values[0])])
    assert await tier.get_many(KEYS[:1]) == values[:1]


async def test_the_largest_copy_is_sealed_too(holders: Holders) -> None:
    large = entry(bytes(1_000_000))
    assert not await holders.new.set_many([(KEYS[0], large)])
    assert await holders.turned.get_many(KEYS[:1]) == [large]


KEY = OLD.hex()


@pytest.fixture
def app(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An instance that seals, and looks at its servers every 20 ms."""
    monkeypatch.setattr(polled, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("cachesvc.app.instance.SystemClock", lambda: CLOCK)
    with redis_server() as queue, redis_server() as cell:
        topology = Topology(
            version=1,
            regions={"eu": Region(queue.redis_url, {"mc-0": MemcachedServer(server.address)})},
            cells={"c1": Cell("eu", cell.redis_url)},
            namespaces={"pages": Namespace("web")},
        )
        yield App(Service(region="eu", instance="a", server=Server(port=0), l2=L2(seal_keys=KEY)), topology)


async def test_copies_that_nobody_sealed_are_named_once(
    app: App, attacker: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it begins, one when no copy was refused for a minute; however many were."""
    caplog.set_level(logging.DEBUG)

    def unmet() -> list[dict[str, str]]:
        found: Any = app.readiness()[1]["settings"]
        return [one for one in found if one["need"] == "seal"]

    def is_judged() -> bool:
        return ("memcached", "mc-0", "seal", "cost") in app._backends.findings.statistics()

    tier = app._backends.memcached.leaves["mc-0"]
    assert isinstance(tier, MemcachedTier)
    await app.start()
    await until("it has looked", is_judged)
    assert unmet() == []
    for number in range(50):
        await put(attacker, KEYS[0], b"forged %d" % number)
        assert await tier.get_many(KEYS[:1]) == [None]
    await until("it is named", lambda: bool(unmet()))
    (finding,) = unmet()
    assert (finding["server"], finding["effect"]) == ("memcached mc-0", "cost")
    assert finding["why"] == "it held copies that no key of this instance has sealed: each is a miss"
    exposed, _ = await app._metrics.exposition("text/plain")
    CLOCK.ahead_us = UNSEALED_SECONDS * SECONDS
    await until("it is over", lambda: not unmet())
    CLOCK.ahead_us = 0
    await app.stop()
    lines = [record.getMessage() for record in caplog.records if ", seal:" in record.getMessage()]
    assert len(lines) == 2
    assert b'cachesvc_server_unsealed_total{server="mc-0"} 50.0' in exposed
    assert KEY not in f"{caplog.text}{finding}{exposed!r}{app.readiness()}{tier!r}{app!r}"
