"""Wires the paths of an instance: for the service, and for the tests.

Built in one direction: fences → admission → near tiers → invalidator → loads → flights → reader,
writer.
"""

import random
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from cachesvc.changes.announce import Announcer
from cachesvc.changes.apply import Applier
from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.changes.contract import Changes, FenceStream
from cachesvc.changes.delays import ChangeLags
from cachesvc.changes.journal.file import JournalFile
from cachesvc.changes.journal.journal import Journal, JournalLimits, JournalStore
from cachesvc.changes.journal.records import Opening
from cachesvc.changes.receipts import Receipts
from cachesvc.changes.rivals import Rivals
from cachesvc.coherence.admission import Admission
from cachesvc.coherence.fences import Fences
from cachesvc.coherence.merger import Merger
from cachesvc.config.l1_rooms import rooms_of
from cachesvc.config.service import INSTANCE_MARK, Service, is_audit_logged
from cachesvc.config.topology import Topology
from cachesvc.explain.explainer import Explainer, Peers, PoolView
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.requests import Author, InvalidateOptions
from cachesvc.paths.estimate import Estimator
from cachesvc.paths.flight import Flights
from cachesvc.paths.flight_runner import FlightRunner, Spawns
from cachesvc.paths.invalidate import Invalidator
from cachesvc.paths.leased_loads import LeasedLoads
from cachesvc.paths.load import Loads
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.new_sources import NewSources
from cachesvc.paths.read import Reader
from cachesvc.paths.tally import Tally
from cachesvc.paths.unkept import Unkept
from cachesvc.paths.warm_restart import WarmRestart
from cachesvc.paths.write import Writer
from cachesvc.telemetry.ghosts import Ghosts
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.telemetry.popularity.read_sample import ReadSample
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l2.contract import Pool
from cachesvc.tiers.l3.contract import Cell
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.origin.budget import Turns
from cachesvc.tiers.origin.contract import Loader

MINUTE_US = 60 * SECONDS

_BY_ORIGIN = InvalidateOptions(author=Author(says="origin"))
"""An invalidation that an origin's answer made necessary, as the audit has it."""

_BY_TOPOLOGY = InvalidateOptions(author=Author(says="topology"))
"""One that other `sources` in the topology made necessary."""


@dataclass(frozen=True)
class Remote:
    """Everything that the paths of an instance reach over the network, by contract."""

    l2: Pool
    """The memcached pool of the instance's region."""
    pool: PoolView
    """The same pool, as explanations look at it."""
    cells: Mapping[str, Cell]
    """Every cell of the topology, by name."""
    loaders: Mapping[str, Loader]
    """One for each namespace with an origin, by its name."""
    changes: Changes
    """The `changes` stream of the instance's region."""
    streams: Mapping[str, FenceStream]
    """The `fences` stream of every region, by its name."""
    peers: Peers


@dataclass(frozen=True)
class Paths:
    """The paths of one instance, and what they are made of as far as others use it."""

    fences: Fences
    admission: Admission
    l1: L1
    homes: Homes
    flights: Flights
    hot_keys: HotKeys
    ghosts: Ghosts
    near_tiers: NearTiers
    tally: Tally
    lags: ChangeLags
    merger: Merger
    applier: Applier
    announcer: Announcer
    journal: Journal | None
    """The changes that could not be announced; None if the instance keeps no journal."""
    rivals: Rivals
    """Others that have a name which is this instance's or its queue's."""
    receipts: Receipts
    reader: Reader
    writer: Writer
    invalidator: Invalidator
    explainer: Explainer
    trail: AuditTrail
    warm_restart: WarmRestart
    new_sources: NewSources

    def take(self, topology: Topology) -> None:
        """Takes what was computed from namespaces that have changed; they are looked up otherwise.

        The parser of changes has taken them.
        """
        self.fences.expect_loads(_longest_load_us(topology))
        self.receipts.longest_lag_us = _longest_lag_us(topology)
        self.ghosts.take(_ttls_us(topology))
        self.hot_keys.take([*topology.namespaces])
        if self.journal is not None:
            self.journal.take(topology.namespaces)
        self.new_sources.take(topology.namespaces)


def build(
    service: Service,
    topology: Topology,
    remote: Remote,
    *,
    placement: Placement,
    clock: Clock,
    rng: random.Random,
    tasks: Spawns,
    is_overloaded: Callable[[], bool],
    incarnation: str,
    turns: Mapping[str, Turns] = MappingProxyType({}),
    journal_store: JournalStore | None = None,
) -> Paths:
    """The paths of the instance that `service` describes. Starts nothing and does no I/O.

    `tasks` owns the flights that need a task of their own; `is_overloaded` tells whether the web
    layer sheds load now; `incarnation` tells this process from another one of its name; `turns` has
    the origin budgets of the namespaces that have one; `journal_store` is where the journal is kept, if
    not in the file of `queue.journal`.
    """
    region, instance, coherence = service.region, service.instance, service.coherence
    skew_us, namespaces, stream = coherence.max_clock_skew, topology.namespaces, remote.streams[region]
    fences = Fences(
        clock,
        skew_us,
        coherence.sketch_slots,
        topology.regions,
        _longest_load_us(topology),
        service.l3.retention,
        placement.id,
        remote.cells,
    )
    admission = Admission(fences, clock)
    rooms = rooms_of(topology, service.l1.budget)
    l1 = L1(service.l1.budget, service.l1.max_entries, clock, rooms=rooms)
    homes = Homes(placement, remote.cells)
    flights, tally, lags = Flights(), Tally.zero(), ChangeLags()
    hot_keys = HotKeys(
        namespaces,
        clock,
        share=service.server.hot_key_share,
        instances=len(topology.regions[region].instances),
    )
    sample = ReadSample(hot_keys, rng)
    ghosts = Ghosts(
        _ttls_us(topology),
        fences,
        clock,
        limit=service.telemetry.report_keys,
    )
    near_tiers, unkept = NearTiers(l1, remote.l2, admission, hot_keys, ghosts), Unkept()
    merger = Merger(fences, flights.forget)
    applier = Applier(homes, clock, skew_us)
    journal_store = journal_store or _journal_file(service, topology)
    journal = (
        Journal(
            region,
            instance,
            journal_store,
            limits=JournalLimits(service.queue.journal.max_bytes, service.queue.journal.max_changes),
            cells=remote.cells,
            stream=stream,
            applier=applier,
            merger=merger,
            clock=clock,
            namespaces=namespaces,
            heartbeat_us=coherence.heartbeat,
            outlived_us=service.l3.retention + MINUTE_US,
        )
        if journal_store is not None
        else None
    )
    announcer = Announcer(
        region=region,
        changes=remote.changes,
        stream=stream,
        merger=merger,
        clock=clock,
        lags=lags,
        journal=journal,
    )
    rivals = Rivals(
        region,
        instance,
        incarnation,
        remote.cells.values(),
        remote.streams,
        heartbeat_us=coherence.heartbeat,
        journal=(lambda: journal.use) if journal is not None else (lambda: None),
    )
    receipts = Receipts(
        region,
        remote.streams,
        rivals,
        heartbeat_seconds=coherence.heartbeat.seconds,
        longest_lag_us=_longest_lag_us(topology),
        skew_us=skew_us,
        journal=journal,
    )
    kept, is_logged = service.telemetry.audit_records, is_audit_logged(service)
    trail = AuditTrail(region, clock, kept, is_logged=is_logged)
    invalidator = Invalidator(
        region=region,
        instance=instance,
        announcer=announcer,
        applier=applier,
        near_tiers=near_tiers,
        receipts=receipts,
        estimator=Estimator(l1, sample, homes),
        trail=trail,
    )
    leased_loads = LeasedLoads(turns)
    loads = Loads(
        loaders=remote.loaders,
        turns=turns,
        invalidate=partial(invalidator.invalidate, options=_BY_ORIGIN),
        near_tiers=near_tiers,
        admission=admission,
        rng=rng,
        tally=tally,
        unkept=unkept,
    )
    runner = FlightRunner(
        near_tiers=near_tiers,
        l2=remote.l2,
        homes=homes,
        loads=loads,
        leased_loads=leased_loads,
        flights=flights,
        admission=admission,
        tasks=tasks,
        rng=rng,
        tally=tally,
        unkept=unkept,
    )
    reader = Reader(
        namespaces=namespaces,
        l1=l1,
        flights=flights,
        runner=runner,
        admission=admission,
        rng=rng,
        tally=tally,
        sample=sample,
        ghosts=ghosts,
        homes=homes,
        leased_loads=leased_loads,
        turns=turns,
    )
    writer = Writer(
        namespaces=namespaces,
        homes=homes,
        announcer=announcer,
        applier=applier,
        reader=reader,
        near_tiers=near_tiers,
        fences=fences,
        clock=clock,
        rng=rng,
        tally=tally,
        unkept=unkept,
        leased_loads=leased_loads,
    )
    warm_restart = WarmRestart(
        f"l1-{region}-{instance}",
        service.l1.snapshot,
        namespaces=namespaces,
        l1=l1,
        near_tiers=near_tiers,
        admission=admission,
    )
    explainer = Explainer(
        topology=topology,
        placement=placement,
        me=(region, instance),
        l1=l1,
        pool=remote.pool,
        homes=homes,
        peers=remote.peers,
        admission=admission,
        is_overloaded=is_overloaded,
        is_unkept=unkept.__contains__,
        is_over_budget=lambda namespace: namespace in turns and turns[namespace].is_used_up,
    )
    return Paths(
        fences=fences,
        admission=admission,
        l1=l1,
        homes=homes,
        flights=flights,
        hot_keys=hot_keys,
        ghosts=ghosts,
        near_tiers=near_tiers,
        tally=tally,
        lags=lags,
        merger=merger,
        applier=applier,
        announcer=announcer,
        journal=journal,
        rivals=rivals,
        receipts=receipts,
        reader=reader,
        writer=writer,
        invalidator=invalidator,
        explainer=explainer,
        trail=trail,
        warm_restart=warm_restart,
        new_sources=NewSources(namespaces, partial(invalidator.invalidate, options=_BY_TOPOLOGY), tasks),
    )


def _journal_file(service: Service, topology: Topology) -> JournalFile | None:
    """The file of the settings; None if they name none."""
    journal = service.queue.journal
    if not journal.path:
        return None
    opening = Opening(secrets.token_hex(8), service.region, tuple(sorted(topology.cells)))
    path = Path(journal.path.replace(INSTANCE_MARK, service.instance))
    return JournalFile(path, opening, is_synced=journal.fsync == "always")


def _longest_load_us(topology: Topology) -> int:
    """The time for which merges of fences are remembered, µs.

    A read may ask about them for as long as it waits for a lease and then loads.
    """
    loads = [
        namespace.lease_wait + (namespace.origin.hard_deadline if namespace.origin else namespace.lease)
        for namespace in topology.namespaces.values()
    ]
    return max(loads, default=0) + 2 * SECONDS


def _ttls_us(topology: Topology) -> dict[str, int]:
    return {name: namespace.ttl for name, namespace in topology.namespaces.items()}


def _longest_lag_us(topology: Topology) -> int:
    return max((namespace.max_lag for namespace in topology.namespaces.values()), default=0)
