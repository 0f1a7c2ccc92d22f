"""Wires the limits that hold for the whole region: origin budgets and rates."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic

from cachesvc.config.callers import rates_of
from cachesvc.config.limits import OriginBudget, Rates
from cachesvc.config.service import Service
from cachesvc.config.topology import Namespace, Topology
from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.troubles import CUT_OFF, used_up
from cachesvc.tiers.origin.budget import Turns
from cachesvc.tiers.shares.contract import Lessor
from cachesvc.tiers.shares.leasing import Leasing
from cachesvc.tiers.shares.share import Share
from cachesvc.web.rates import RateLimits

LATELY_SECONDS = 10.0
"""A limit is named as used up for so long after its last refusal."""


@dataclass(frozen=True)
class Limits:
    """The shares of one instance, and what they limit."""

    leasing: Leasing
    turns: dict[str, Turns]
    """The origin budgets, by namespace; only of namespaces that have one."""
    rates: RateLimits
    instances: int
    """The number of instances that the topology names for the region."""

    @property
    def shares(self) -> Mapping[tuple[str, ...], Share]:
        """The shares of this instance by the names of their limits."""
        return {tuple(share.limit): share for share in self.leasing.shares}

    def watched(self) -> Sequence[Loop]:
        """The loop that renews the shares."""
        return [self.leasing.loop]

    def leased(self) -> list[Share]:
        """Returns the shares that are to be renewed."""
        return [*(share for one in self.turns.values() for share in one.shares), *self.rates.shares]

    def take(self, topology: Topology) -> None:
        """Takes the rates, and the numbers of origin budgets, of a topology that was read again.

        A namespace that comes brings its budget. One that another namespace gets or loses, or that limits
        another thing, is taken at the next start. The turns of a namespace that is gone end with its loads.
        """
        for name in self.turns.keys() - topology.namespaces.keys():
            del self.turns[name]
        for name, namespace in topology.namespaces.items():
            if namespace.origin_budget is None:
                continue
            if name in self.turns:
                self.turns[name].change(namespace.origin_budget)
            else:
                self.turns[name] = _turns(name, namespace, namespace.origin_budget, self.instances)
                self.turns[name].want = self.leasing.want
        self.rates.take(_rates_of_namespaces(topology), dict(rates_of(topology.callers)))
        self.leasing.shares = self.leased()
        self.leasing.want()

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each limit that has refused something of late."""
        now = monotonic()
        for share in self.leasing.shares:
            if now - share.refused_at < LATELY_SECONDS:
                yield used_up(str(share.limit), share.amount)
        if any(share.is_cut_off for share in self.leasing.shares):
            yield CUT_OFF


def build(service: Service, topology: Topology, lessor: Lessor) -> Limits:
    """The limits of the instance that `service` describes. Starts nothing and does no I/O."""
    instances = instances_of(service.region, topology)
    turns = {
        name: _turns(name, namespace, namespace.origin_budget, instances)
        for name, namespace in topology.namespaces.items()
        if namespace.origin_budget is not None
    }
    rates = RateLimits(_rates_of_namespaces(topology), dict(rates_of(topology.callers)), instances=instances)
    leasing = Leasing(lessor, [])
    for one in turns.values():
        one.want = leasing.want
    rates.want = leasing.want
    limits = Limits(leasing, turns, rates, instances)
    leasing.shares = limits.leased()
    return limits


def _turns(name: str, namespace: Namespace, budget: OriginBudget, instances: int) -> Turns:
    return Turns(
        name,
        budget,
        instances=instances,
        longest_load_us=_longest_load_us(namespace),
        most_here=namespace.origin.concurrency if namespace.origin is not None else inf,
    )


def instances_of(region: str, topology: Topology) -> int:
    """The number of instances that the topology names for the region; 1 at least."""
    return max(1, len(topology.regions[region].instances))


def _rates_of_namespaces(topology: Topology) -> dict[str, Rates]:
    return {name: one.rates for name, one in topology.namespaces.items() if one.rates is not None}


def _longest_load_us(namespace: Namespace) -> int:
    return namespace.origin.hard_deadline if namespace.origin is not None else namespace.lease
