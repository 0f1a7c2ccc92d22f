"""The home cells of an instance: made, greeted, taken and closed, as its document says.

    prepare(document) ─► cells that it adds are connected and greeted; one that does not answer in
                         time: the document waits, and is tried again
    take(document)    ─► in one step: those cells are there, all others attach with the new
                         placement before their next exchange, and cells that left are drained
    drained           ─► `DRAIN_SECONDS` later, its connections are closed

A cell whose address changes is another cell of that name, and is greeted as one that is added.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from msgspec import Struct

from cachesvc.app.tasks import Tasks
from cachesvc.config.addresses import is_watched
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.clock import Clock
from cachesvc.model.errors import ConfigError, TierError
from cachesvc.telemetry.metrics.polled import Polled
from cachesvc.tiers.breaker import BreakerPool
from cachesvc.tiers.l3.issuer import Issuer
from cachesvc.tiers.l3.leases import holder_mark
from cachesvc.tiers.l3.moves import check_move
from cachesvc.tiers.l3.placement import Placement
from cachesvc.tiers.l3.redis_cell import RedisCell
from cachesvc.tiers.redis_connections import Access
from cachesvc.tiers.redis_report import RedisReport
from cachesvc.tiers.server_settings import Need, needs_of_cell

DRAIN_SECONDS = 5.0
"""The time for the work that was begun with a cell which has left: that of a lease."""

Look = Callable[[str, list[Need[RedisReport]], Callable[[], Awaitable[RedisReport]]], Awaitable[RedisReport]]
"""Asks a cell of this name for its report, and notes whether these needs are met."""


class _Prepared(Struct, frozen=True):
    topology: Topology
    placement: Placement
    cells: Mapping[str, RedisCell]
    """The cells that the topology adds, greeted."""


class Cells:
    """The home cells of one instance, by name. `start` once, then `stop` once."""

    def __init__(
        self,
        service: Service,
        topology: Topology,
        placement: Placement,
        clock: Clock,
        *,
        access: Access,
        tasks: Tasks,
        look: Look,
    ) -> None:
        """Makes the cells of the topology without I/O. `tasks` owns the draining of cells."""
        self._service = service
        self._clock = clock
        self._access = access
        self._tasks = tasks
        self._look = look
        self._skew_us = int(service.coherence.max_clock_skew)
        self._mark = holder_mark(service.region, service.instance)
        self._topology = topology
        self._prepared = _Prepared(topology, placement, {})
        self._issuers: dict[str, Issuer] = {}
        self._draining: set[RedisCell] = set()
        self.breakers = BreakerPool(service.breakers)
        self.by_name: dict[str, RedisCell] = {
            name: self._made(topology, name, placement) for name in topology.cells
        }
        """The cells now. The mapping stays the same one, so that who reads it sees all changes."""
        for name, cell in self.by_name.items():
            cell.breaker = self.breakers.add(name)
        self.reports: Polled[RedisReport] = Polled(
            "cells", {name: self._asking(topology, cell) for name, cell in self.by_name.items()}
        )

    def __repr__(self) -> str:
        return f"<Cells [{', '.join(self.by_name)}; {len(self._draining)} are drained]>"

    def _made(self, topology: Topology, name: str, placement: Placement) -> RedisCell:
        return RedisCell(
            name,
            topology.cells[name].url,
            self._service.l3,
            self._skew_us,
            self._clock,
            placement=(placement.id, topology.version),
            nonce=lambda: self._mark + secrets.token_hex(6),
            issuers=self._issuers,
            access=self._access,
        )

    def _asking(self, topology: Topology, cell: RedisCell) -> Callable[[], Awaitable[RedisReport]]:
        needs = needs_of_cell(self._skew_us, is_watched=is_watched(topology.cells[cell.name].url))
        return partial(self._look, cell.name, list(needs), cell.report)

    # another document ----------------------------------------------------------------------------

    async def prepare(self, topology: Topology) -> None:
        """Connects to the cells that `topology` adds, and greets them; nothing else changes.

        Raises `ConfigError` if one does not answer within the time for connecting, or if the homes must
        not be taken (`check_move`). If cancelled, or after an error, what was connected is closed.
        """
        before = self._topology
        check_move(before, topology)
        await self._forget_prepared()
        added = [
            name
            for name, cell in topology.cells.items()
            if name not in before.cells or before.cells[name].url != cell.url
        ]
        placement = Placement(topology)
        known = dict(self._issuers)
        made = {name: self._made(topology, name, placement) for name in added}
        self._prepared = _Prepared(topology, placement, made)
        try:
            await asyncio.gather(*(_greeted(cell) for cell in made.values()))
        except BaseException:
            self._issuers.clear()
            self._issuers.update(known)
            await self._forget_prepared()
            raise

    async def _forget_prepared(self) -> None:
        """Closes cells that were prepared for a document which was not taken."""
        prepared, self._prepared = self._prepared, _Prepared(self._topology, self._prepared.placement, {})
        for cell in prepared.cells.values():
            await cell.stop()

    def take(self, topology: Topology) -> Placement:
        """Takes the cells of a topology that is prepared, and returns its placement."""
        prepared, before = self._prepared, self._topology
        assert prepared.topology is topology  # noqa: S101  `prepare` comes first
        under = (prepared.placement.id, topology.version)
        for name in [name for name in self.by_name if name not in topology.cells or name in prepared.cells]:
            self._leave(self.by_name.pop(name))
        for name, cell in self.by_name.items():
            cell.place(under)
            if before.version != topology.version:
                self._tasks.spawn(cell.greet_soon(), f"greeting {name}")
        for name, cell in prepared.cells.items():
            cell.breaker = self.breakers.add(name)
            self.reports.take(name, self._asking(topology, cell))
        self.by_name.update(prepared.cells)
        self._topology, self._prepared = topology, _Prepared(topology, prepared.placement, {})
        return prepared.placement

    def _leave(self, cell: RedisCell) -> None:
        self.breakers.remove(cell.name)
        if cell.name not in self._prepared.cells:
            self._issuers.pop(cell.name, None)
        self.reports.take(cell.name, None)
        self._draining.add(cell)
        self._tasks.spawn(self._drain(cell), f"draining {cell.name}")

    async def _drain(self, cell: RedisCell) -> None:
        try:
            await asyncio.sleep(DRAIN_SECONDS)
        finally:
            self._draining.discard(cell)
            await cell.stop()

    # start and stop ------------------------------------------------------------------------------

    async def start(self) -> None:
        for cell in self.by_name.values():
            await cell.start()

    async def stop(self) -> None:
        for cell in (*self.by_name.values(), *self._prepared.cells.values(), *self._draining):
            await cell.stop()


async def _greeted(cell: RedisCell) -> None:
    try:
        await cell.greet()
    except TierError as error:
        why = f"does not answer, and the document waits for it: {error.why}"
        raise ConfigError(f"$.cells.{cell.name}", why) from error
