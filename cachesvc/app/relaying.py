"""Which relays an instance follows, and whether it is one: from the topology and its host.

    a relay of its region          follows the one that the topology names for it, or the queues
    a worker, not the host's first follows the first one, over its socket; without it, as any other
    any other                      follows a relay of its region at which no other relay reads

An instance without a relay that answers reads the queues.
"""

import ssl
from collections.abc import Mapping, Sequence

from xxhash import xxh3_64_intdigest

from cachesvc.changes.contract import FenceStream, Followed
from cachesvc.changes.relay.follower import RelayedFollower, RelayWay, relay_breaker
from cachesvc.changes.relay.relay import Relay
from cachesvc.changes.relay.wires import HttpRelays, socket_dial
from cachesvc.config.service import Service
from cachesvc.config.topology import Region, Topology
from cachesvc.config.workers import Worker, socket_of
from cachesvc.model.clock import Clock
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.tiers.breaker import Breaker


class Relaying:
    """The relays of one instance: those that it follows, and those that it is itself.

    `start` and `stop` are called once each.
    """

    def __init__(
        self,
        service: Service,
        topology: Topology,
        streams: Mapping[str, FenceStream],
        *,
        token_file: str,
        tls: ssl.SSLContext | None,
        clock: Clock,
        worker: Worker | None,
    ) -> None:
        """`token_file` and `tls` are what this instance shows to others, and checks of them."""
        self._here = here = topology.regions[service.region]
        self._region, self._name = service.region, service.instance
        self._http = HttpRelays(token_file, tls)
        self.breakers: dict[str, Breaker] = {}
        """Those of the relays that may be followed, by name; the same for all regions."""
        log_bytes = service.coherence.relay_log
        self._first = worker if worker is not None and log_bytes and not worker.is_first else None
        """The worker that this instance is, if it reads from the first one of its host."""
        hands_on = service.instance in here.relays or (worker is not None and worker.is_first)
        self.relays = {name: Relay(name, log_bytes) for name in streams} if hands_on and log_bytes else {}
        """The relays that this instance is, by region; empty if it is none."""
        self.followers = {
            name: RelayedFollower(
                stream,
                ways,
                self.relays.get(name),
                clock,
                skew_us=service.coherence.max_clock_skew,
                heartbeat_seconds=service.coherence.heartbeat.seconds,
            )
            for name, stream in streams.items()
            if (ways := self._ways(name)) or self.relays
        }
        """The readers through relays, or for them, by region."""
        self.followed: Mapping[str, Followed] = {**streams, **self.followers}
        """The streams that the feeds read, by region."""

    async def start(self) -> None:
        """Opens no connection yet."""
        await self._http.start()

    async def stop(self) -> None:
        """Leaves the relays that are followed, and ends the followers of this one."""
        for follower in self.followers.values():
            follower.close()
        for relay in self.relays.values():
            relay.end()
        await self._http.stop()

    def is_spared(self, bound_us: int | None) -> bool:
        """Returns whether the first worker of the host consumes changes for this one, too.

        `bound_us`: the bound of the own region's feed, which shows that it does so in time.
        """
        if self._first is None:
            return False
        return self.followers[self._region].is_served_by(self._first.names[0], bound_us)

    def watch(self, metrics: Metrics) -> None:
        """Has everything that is counted here read at each scrape."""
        metrics.watch("relays", lambda: {(name,): relay for name, relay in self.relays.items()})
        metrics.watch("relayed", lambda: {(name,): one for name, one in self.followers.items()})

    def sources(self) -> Mapping[str, str]:
        """Returns the names of the relays that are followed now, by region."""
        return {name: one.source for name, one in self.followers.items() if one.is_relayed}

    def _ways(self, region: str) -> Sequence[RelayWay]:
        ways = [
            RelayWay(name, self._http.dial(self._here.operations_of(name), region), self._breaker(name))
            for name in relays_for(self._name, self._here)
        ]
        worker = self._first
        if worker is None or self._name in self._here.relays:
            return ways
        first = worker.names[0]
        return [RelayWay(first, socket_dial(socket_of(worker, 0), region), self._breaker(first)), *ways]

    def _breaker(self, relay: str) -> Breaker:
        return self.breakers.setdefault(relay, relay_breaker())


def relays_for(instance: str, region: Region) -> Sequence[str]:
    """Returns the relays that an instance may follow, in the order in which it tries them.

    Instances are spread over the relays by the digests of their names.
    """
    relays = region.relays
    if instance in relays:
        return [relays[instance]] if relays[instance] else []
    last = relays.keys() - set(relays.values())
    return sorted(last, key=lambda relay: xxh3_64_intdigest(f"{instance} {relay}".encode()), reverse=True)
