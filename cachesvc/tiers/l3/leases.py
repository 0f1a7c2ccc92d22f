"""Leases as their holder uses them. The home cell grants, voids and expires them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple

from cachesvc.model.digest import digest
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.l3.contract import Cell


def lease_as_of(lease: str) -> int:
    """Returns the `as_of` in a lease token (`nonce:as_of`).

    Raises `RequestError` for a text that cannot be a lease token.
    """
    nonce, colon, as_of = lease.partition(":")
    if not (
        nonce and colon and as_of.isascii() and as_of.isdigit() and len(lease) <= 80 and len(as_of) <= 16
    ):
        raise RequestError(
            ProblemKind.BAD_LEASE,
            "not a lease token: send the one that the miss was answered with",
            field="Cachesvc-Lease",
        )
    return int(as_of)


def holder_mark(region: str, instance: str) -> str:
    """Returns the beginning of the nonces of an instance's leases.

    It tells which instance a lease belongs to. Names would make tokens long.
    """
    return f"{digest(f'{region}/{instance}'.encode()) & 0xFFFFFFFF:08x}"


def holder_of(lease: str, instances: Iterable[tuple[str, str]]) -> str:
    """Returns the `region/instance` that asked for the lease.

    Empty if it is none of `instances`.
    """
    return next(
        (f"{region}/{name}" for region, name in instances if lease.startswith(holder_mark(region, name))), ""
    )


class HeldLease(NamedTuple):
    """A lease that this instance holds, for a load of its own or for a caller."""

    cell: Cell
    key: Key
    token: str
    ended: Callable[[], None] | None = None
    """Called once the lease is given back; None: nobody counts it."""

    def give_back(self) -> None:
        """Lets the home grant the key's next lease at once.

        Nobody waits for that, or is told of a failure.
        """
        if self.ended is not None:
            self.ended()
        self.cell.release(self.key, self.token)


@contextlib.asynccontextmanager
async def renewed(
    cell: Cell, key: Key, lease: str | None, life_us: int, until_seconds: float
) -> AsyncIterator[None]:
    """Keeps a lease alive while the block runs, by a renewal after every third of its life.

    Renewing ends after `until_seconds` in all; if that is less than half of the lease's life, nothing
    is renewed. A renewal that fails is not repeated earlier: the fill finds out. A renewal that the
    cell refuses ends the renewing: the lease was voided by a fence or has expired, and a renewal never
    re-creates a lease.
    """
    if lease is None or until_seconds * 1_000_000 < life_us / 2:
        yield
        return
    task = asyncio.create_task(_renew(cell, key, lease, life_us, until_seconds), name="lease renewal")
    try:
        yield
    finally:
        task.cancel()


async def _renew(cell: Cell, key: Key, lease: str, life_us: int, until_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + until_seconds
    while loop.time() < end:
        await asyncio.sleep(life_us / 3_000_000)
        (renewed_,) = await cell.renew_many([(key, lease, life_us)])
        if renewed_ is False:
            return
