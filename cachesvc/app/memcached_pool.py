"""The memcached servers of an instance: a ring and a gutter, which change while it runs.

    prepare ──► servers that come are made, connected and greeted, all at once and in bounded time
    take    ──► between two turns of the loop: the ring and the gutter of the new document
    then    ──► for `l2.warm_up`, misses are asked for at the ring before (`warm_up.py`)
    at last ──► what left is drained and closed, with its thread

A server is known by its name and its address: another address is another server, with the same
place on the ring. Weight and zone change where a server stands, and not the server.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import starmap

from cachesvc.app.tasks import Tasks
from cachesvc.config.seal_keys import seal_keys
from cachesvc.config.service import Service
from cachesvc.config.topology import STAND_IN, MemcachedServer, Topology
from cachesvc.config.zones import zone_of
from cachesvc.explain.answer import Memcached
from cachesvc.model.clock import Clock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError
from cachesvc.telemetry.findings import Findings
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.telemetry.metrics.polled import Polled
from cachesvc.telemetry.traces.exchange_span import Server
from cachesvc.telemetry.troubles import silent_memcached
from cachesvc.tiers.breaker import Breaker, BreakerPool, BreakerState
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.contract import Lookup, Pool
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.measured import Measured
from cachesvc.tiers.l2.memcached import MemcachedTier, fullness_of
from cachesvc.tiers.l2.memcached_access import access_of
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from cachesvc.tiers.l2.statistics import Fullness
from cachesvc.tiers.l2.warm_up import MayHave, Warmed, WarmUp, WarmUpTally
from cachesvc.tiers.seal import Seal
from cachesvc.tiers.server_settings import need_of_seal, needs_of_memcached
from cachesvc.tiers.tls import Certificates

log = logging.getLogger(__name__)

STAND_IN_BYTES = 64 << 20
LATE_PART = 0.5
"""An answer of memcached within this part of `l2.timeout` is never late."""
GREETING_SECONDS = 2.0
"""The longest time that a server that comes is waited for.

One that has not answered by then takes its place all the same, and its breaker leaves it alone."""
DRAIN_SECONDS = 5.0
"""The longest time that the exchanges with a server that left are waited for."""
LEFT_SECONDS = 0.1
"""A call that began before the change has reached the server's queue by then."""


@dataclass(frozen=True, eq=False)
class PoolServer:
    """One memcached server, as it is used: batches, breaker, deadline, connection."""

    name: str
    address: str
    leaf: MemcachedTier | MemoryTier
    top: Pool
    """The tier that the ring asks."""
    breaker: Breaker | None = None
    guarded: Guarded | None = None
    batched: Batched | None = None
    measured: Measured | None = None

    async def drain(self) -> None:
        """Waits until what was asked is answered, in bounded time; then closes the connection."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await asyncio.sleep(LEFT_SECONDS)
                if self.batched is not None:
                    await self.batched.drain()
        except TimeoutError:
            log.warning("memcached %s has left with exchanges in flight: they are given up", self.name)
        finally:
            await self.top.stop()


Servers = dict[str, PoolServer]


class MemcachedPool:
    """The pool as paths, explanations and metrics see it. `start` once, then `stop` once.

    `take` is called with the document that was prepared last.
    """

    def __init__(
        self,
        service: Service,
        topology: Topology,
        clock: Clock,
        certificates: Certificates,
        tasks: Tasks,
        findings: Findings,
    ) -> None:
        """`findings`: whether the settings of the servers are what the rule needs."""
        self._service = service
        self._clock = clock
        self._tasks = tasks
        self._findings = findings
        self._breakers = BreakerPool(
            service.breakers, late_from_seconds=LATE_PART * service.l2.timeout.seconds
        )
        self._gutter_breakers = BreakerPool(service.breakers)
        keys = seal_keys(service.l2.seal_keys) if service.l2.seal else ()
        self._seal = Seal(keys) if keys else None
        self._access = access_of(service.l2, certificates.clients("memcached"))
        self.zone = ""
        """The zone of the instance; empty if it is not known."""
        self._zones: dict[str, str] = {}
        """The zones of the servers that have one, by name."""
        self._servers: Servers = {}
        self._gutter_servers: Servers = {}
        self._left: list[PoolServer] = []
        """Servers that left the ring and are still asked on misses."""
        self._ready: Servers = {}
        self._gutter_ready: Servers = {}
        """The servers of the document that was prepared last, by name."""
        self._ring_ready: Ring | None = None
        self._gutter_ring_ready: Ring | None = None
        self._gutter = Sharded(None, {})
        self.l2 = Sharded(None, {})
        """The tier that the paths ask."""
        self._warm_up: WarmUp | None = None
        self._warming: asyncio.Task[None] | None = None
        self.warm_up_tally = WarmUpTally()
        self.may_have: MayHave = lambda key, entry: True
        """Whether a copy of a former server may be kept by the new one."""
        self.fullness: Polled[Fullness] = Polled("memcached servers", {})
        self._make_ready(topology)
        self._ring_ready, self._gutter_ring_ready = starmap(_ring, self._rings(topology))
        self.take(topology)
        if topology.regions[service.region].rings == "zone" and self.zone not in self._zones.values():
            log.warning(
                "%s: this instance keeps its copies on the memcached servers of all zones",
                f"zone {self.zone} has no memcached server" if self.zone else "no zone is set",
            )

    def __repr__(self) -> str:
        warming = ", warming up" if self.is_warming else ""
        return f"<MemcachedPool [{', '.join(self._servers)}{warming}]>"

    # servers that come -----------------------------------------------------------------------------

    async def prepare(self, topology: Topology) -> None:
        """Connects and greets the servers that come with this document, and computes its rings."""
        coming = self._make_ready(topology)
        rings = [await asyncio.to_thread(_ring, *one) for one in self._rings(topology)]
        self._ring_ready, self._gutter_ring_ready = rings
        for server in coming:
            await server.top.start()
        await asyncio.gather(*map(self._greet, coming))

    def _make_ready(self, topology: Topology) -> Sequence[PoolServer]:
        """Makes the servers of this document that are not there; returns those."""
        here, zone = topology.regions[self._service.region], zone_of(self._service, topology)
        given_up = [
            server
            for ready, used in ((self._ready, self._servers), (self._gutter_ready, self._gutter_servers))
            for server in ready.values()
            if used.get(server.name) is not server
        ]
        self._leave(given_up)  # what was prepared and never taken
        self._ready, coming = self._with(self._servers, here.ring_of(zone), self._server)
        self._gutter_ready, to_gutter = self._with(
            self._gutter_servers, here.gutter_of(zone), self._gutter_server
        )
        return [*coming, *to_gutter]

    def _rings(self, topology: Topology) -> Sequence[tuple[Mapping[str, MemcachedServer], Ring | None]]:
        """The servers of the ring and of the gutter, each with the ring in force."""
        here, zone = topology.regions[self._service.region], zone_of(self._service, topology)
        return (here.ring_of(zone), self.l2.ring), (here.gutter_of(zone), self._gutter.ring)

    def _with(
        self,
        used: Servers,
        wanted: Mapping[str, MemcachedServer],
        make: Callable[[str, MemcachedServer], PoolServer],
    ) -> tuple[Servers, Sequence[PoolServer]]:
        """Returns the wanted servers by name, and those among them that had to be made."""
        there = {name: one for name, one in used.items() if _is_at(one, wanted.get(name))}
        made = {name: make(name, one) for name, one in wanted.items() if name not in there}
        return {name: there.get(name) or made[name] for name in wanted}, list(made.values())

    def _server(self, name: str, server: MemcachedServer) -> PoolServer:
        if server.address == STAND_IN:
            stand_in = MemoryTier(self._clock, STAND_IN_BYTES)
            return PoolServer(name, STAND_IN, stand_in, stand_in)
        return self._memcached(name, server, self._breakers.make())

    def _gutter_server(self, name: str, server: MemcachedServer) -> PoolServer:
        longest_us = self._service.l2.gutter_ttl
        return self._memcached(name, server, self._gutter_breakers.make(), longest_us=longest_us)

    def _memcached(
        self, name: str, server: MemcachedServer, breaker: Breaker, longest_us: int | None = None
    ) -> PoolServer:
        """A memcached server's batches, its breaker, its deadline, its connection."""
        l2 = self._service.l2
        leaf = MemcachedTier(
            name,
            server.address,
            l2,
            self._clock,
            seal=self._seal,
            access=self._access,
            longest_us=longest_us,
        )
        deadline = Deadline(
            leaf,
            l2.timeout.seconds,
            name=name,
            way_seconds=leaf.way_seconds,
            bytes_moved=leaf.bytes_moved,
        )
        measured = Measured(deadline)
        guarded = Guarded(measured, breaker, name=name)
        batched = Batched(guarded, l2.max_batch, name=name, server=Server.memcached(name, server.address))
        return PoolServer(name, server.address, leaf, batched, breaker, guarded, batched, measured)

    async def _greet(self, server: PoolServer) -> None:
        """Has a server answer once, so that no read waits for the connection."""
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                if isinstance(server.leaf, MemcachedTier):
                    await server.leaf.report()
        except (TierError, TimeoutError) as error:
            log.warning("memcached %s does not answer, and joins all the same: %s", server.name, error)

    # the change ------------------------------------------------------------------------------------

    def take(self, topology: Topology) -> None:
        """Has the servers that were prepared take the place of those before."""
        here = topology.regions[self._service.region]
        self.zone = zone_of(self._service, topology)
        pool, gutter = here.ring_of(self.zone), here.gutter_of(self.zone)
        self._zones = {name: one.zone for name, one in {**pool, **gutter}.items() if one.zone}
        self._take_gutter()
        for server in self._ready.values():
            if server.guarded is not None:
                server.guarded.gutter = self._gutter if self._gutter_servers else None
        ring, before, ring_before = self._ring_ready, self._servers, self.l2.ring
        if ring is ring_before and self._ready == before:
            return
        self._end_warm_up()
        self._servers = self._ready
        self._name_breakers(self._breakers, before, self._servers)
        left = [one for name, one in before.items() if self._servers.get(name) is not one]
        if self._service.l2.warm_up and ring is not None and ring_before is not None:
            self._begin_warm_up(ring, ring_before, before, left)
        else:
            self.l2.change(ring, _tops(self._servers))
            self._leave(left)
        self._ask_how_full(before, self._servers)

    def _take_gutter(self) -> None:
        before, self._gutter_servers = self._gutter_servers, self._gutter_ready
        self._name_breakers(self._gutter_breakers, before, self._gutter_servers)
        self._gutter.change(self._gutter_ring_ready, _tops(self._gutter_servers))
        self._ask_how_full(before, self._gutter_servers)
        self._leave([one for name, one in before.items() if self._gutter_servers.get(name) is not one])

    def _name_breakers(self, breakers: BreakerPool, before: Servers, now: Servers) -> None:
        for name in before.keys() - now.keys():
            breakers.remove(name)
        for name, server in now.items():
            if server.breaker is not None:
                breakers.add(name, server.breaker)

    def _ask_how_full(self, before: Servers, now: Servers) -> None:
        for name in before.keys() - now.keys():
            self.fullness.take(name, None)
            self._findings.forget("memcached", name)
        for name, server in now.items():
            if before.get(name) is not server:
                self.fullness.take(name, partial(self._look_at, server))

    def _begin_warm_up(
        self, ring: Ring, ring_before: Ring, before: Servers, left: Sequence[PoolServer]
    ) -> None:
        self._warm_up = warm_up = WarmUp(
            ring_before, _tops(before), self.warm_up_tally, self.may_have, self._tasks.spawn
        )
        self._left = list(left)
        self.l2.change(ring, {name: Warmed(top, warm_up) for name, top in _tops(self._servers).items()})
        self._warming = self._tasks.spawn(self._warm_until_the_end(), "warm-up of the memcached ring")

    async def _warm_until_the_end(self) -> None:
        await asyncio.sleep(self._service.l2.warm_up.seconds)
        self._warming = None
        self._end_warm_up()

    def _end_warm_up(self) -> None:
        """Asks no former server any more. A change ends the warm-up of the change before it."""
        if self._warming is not None:
            self._warming.cancel()
        if self._warm_up is not None:
            self.l2.change(self.l2.ring, _tops(self._servers))
        self._warming = self._warm_up = None
        self._leave(self._left)
        self._left = []

    def _leave(self, servers: Sequence[PoolServer]) -> None:
        for server in servers:
            self._tasks.spawn(server.drain(), f"end of memcached {server.name}")

    @property
    def is_warming(self) -> int:
        """1 while former servers are asked."""
        return int(self._warm_up is not None)

    # start and stop --------------------------------------------------------------------------------

    async def start(self) -> None:
        for server in self._all():
            await server.top.start()

    async def stop(self) -> None:
        """Stops all servers, then raises the first error if there was one."""
        stops = (server.top.stop() for server in [*self._all(), *self._left])
        for end in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    def _all(self) -> Iterator[PoolServer]:
        yield from self._gutter_servers.values()
        yield from self._servers.values()

    # what is said and counted ----------------------------------------------------------------------

    async def _look_at(self, server: PoolServer) -> Fullness:
        leaf = server.leaf
        if isinstance(leaf, MemoryTier):
            return await leaf.fullness()
        said = await leaf.report()
        if server.breaker is not None:
            server.breaker.seen()
        checks = [need.check(said) for need in needs_of_memcached()]
        if leaf.is_sealed:
            checks.append(need_of_seal().check(leaf.has_unsealed()))
        self._findings.saw("memcached", server.name, checks)
        return fullness_of(server.name, said)

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each server that is left alone."""
        for server in [*self._servers.values(), *self._gutter_servers.values()]:
            if server.breaker is not None and server.breaker.is_open:
                yield silent_memcached(server.name, self.fullness.silent.get(server.name, ""))

    def memcached_of(self, key: Key) -> Memcached:
        """The server that has the key's copies, and why it is that one."""
        ring = self.l2.ring
        if ring is None:
            return Memcached("none", "the region has no pool")
        point, other = ring.position(key.digest)
        name = ring.server(key.digest)
        beyond = f"without it {other} would have the key" if other != name else "it is alone"
        why = f"the first point of the ring at or after {key.digest:016x} is {point:016x}; {beyond}"
        if self._warm_up is not None and (former := self._warm_up.ring.server(key.digest)) != name:
            why += f"; it is new to the key, and {former} is asked on a miss"
        server = self._server_of(key, ring)
        if server.name != name:
            why = f"the gutter takes the keys of {name}, which is left alone ({why})"
        return Memcached(server.name, why, str(server.breaker.state) if server.breaker else "")

    def _server_of(self, key: Key, ring: Ring) -> PoolServer:
        """The server that has the key's copies now: its own, or one of the gutter."""
        server, gutter = self._servers[ring.server(key.digest)], self._gutter.ring
        if gutter is None or server.breaker is None or server.breaker.state is not BreakerState.OPEN:
            return server
        return self._gutter_servers[gutter.server(key.digest)]

    async def look(self, key: Key) -> Lookup:
        """The copy in the region's pool.

        Nothing changes, nothing is counted, and no breaker is asked.
        """
        ring = self.l2.ring
        return await self._server_of(key, ring).leaf.look(key) if ring is not None else None

    def watch(self, metrics: Metrics) -> None:
        """Has everything that is counted here read at each scrape."""
        metrics.watch("servers", lambda: {(one.name,): one.leaf.statistics() for one in self._all()})
        metrics.watch("zone", lambda: {(self.zone,): 1} if self.zone else {})
        metrics.watch("server_zones", lambda: dict.fromkeys(self._zones.items(), 1))
        metrics.watch("cross_zone", self._cross_zone_bytes)
        metrics.watch("server_stats", lambda: self.fullness.said)
        metrics.watch("warm_up", lambda: self.warm_up_tally)
        metrics.watch("warming", lambda: self.is_warming)

    def _cross_zone_bytes(self) -> Mapping[tuple[str], int]:
        """The bytes to and from memcached servers of other zones, by direction."""
        far = [
            one.leaf
            for one in self._all()
            if isinstance(one.leaf, MemcachedTier)
            and self.zone
            and self._zones.get(one.name, self.zone) != self.zone
        ]
        return {
            ("sent",): sum(leaf.bytes_sent() for leaf in far),
            ("received",): sum(leaf.bytes_received() for leaf in far),
        }

    def loops(self) -> Iterator[Loop]:
        """The threads of the servers, as loops."""
        yield from (one.leaf.loop for one in self._all() if isinstance(one.leaf, MemcachedTier))

    @property
    def breakers(self) -> Mapping[str, BreakerPool]:
        """The breakers by kind of server."""
        return {"memcached": self._breakers, "gutter": self._gutter_breakers}

    @property
    def batched(self) -> Mapping[str, Batched]:
        return {one.name: one.batched for one in self._all() if one.batched is not None}

    @property
    def measured(self) -> Mapping[str, Measured]:
        return {one.name: one.measured for one in self._all() if one.measured is not None}

    @property
    def leaves(self) -> Mapping[str, MemcachedTier | MemoryTier]:
        return {one.name: one.leaf for one in self._all()}


def _is_at(server: PoolServer, wanted: MemcachedServer | None) -> bool:
    return wanted is not None and wanted.address == server.address


def _tops(servers: Servers) -> dict[str, Pool]:
    return {name: server.top for name, server in servers.items()}


def _ring(servers: Mapping[str, MemcachedServer], known: Ring | None) -> Ring | None:
    """Returns the ring of these servers; `known` if it is that one."""
    weights = {name: server.weight for name, server in servers.items()}
    if known is not None and known.weights == weights:
        return known
    return Ring(weights) if weights else None
