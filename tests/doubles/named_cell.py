"""A cell as one instance reaches it: by a name that leads to one server after another.

Connections stay where they lead when the name moves. What the instance notes of the servers that it
meets is the production code's (`cachesvc/tiers/l3/issuer.py`).
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from cachesvc.model.clock import Clock
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.tiers.l3.contract import CellKeyState, Read, Reply
from cachesvc.tiers.l3.issuer import Issuer
from tests.doubles.memory_cell import MemoryCell
from tests.doubles.tiers import ChaosCell


class NamedCell:
    """One instance's connections to the servers behind a cell's name."""

    def __init__(self, server: ChaosCell, clock: Clock, skew_us: int) -> None:
        self.name = server.name
        self.leads_to = server
        """The server that new connections reach."""
        self._clock = clock
        self._issuer = Issuer(skew_us)
        self._connection = server
        self.connect()

    @property
    def issuer(self) -> int:
        return self._issuer.id

    def connect(self) -> None:
        """Opens a connection to where the name leads; later exchanges use it."""
        self._connection = self.leads_to
        self._issuer.meet(self._connection.issuer, self._clock.now_us())

    def use(self, server: ChaosCell) -> None:
        """Lets the next exchanges use a connection that was opened earlier."""
        self._connection = server

    master = ""

    def look_again(self) -> None: ...

    def __getattr__(self, method: str) -> Any:
        return getattr(self._connection, method)

    async def ask(self, read: Read) -> Reply | TierError:
        return (await self.read_many((read,)))[0]

    async def read_many(self, reads: Sequence[Read]) -> Sequence[Reply | TierError]:
        server = self._connection
        issuer, broken_at = server.issuer, server.broken_at
        found = await server.read_many(reads)
        exact_from = self._issuer.exact_from(issuer, broken_at, self._clock.now_us())
        return [
            replace(reply, exact=reply.entry is not None and reply.entry.as_of > exact_from)
            if isinstance(reply, Reply)
            else reply
            for reply in found
        ]

    async def inspect(self, key: Key, tags: Sequence[str]) -> CellKeyState:
        state = await self._connection.inspect(key, tags)
        exact_from = self._issuer.exact_from(state.issuer, state.broken_at, state.now_us)
        return replace(state, exact_from=exact_from)


class Demoted(ChaosCell):
    """A server that has become a replica: it refuses every script."""

    def __getattr__(self, method: str) -> Any:
        inner = super().__getattr__(method)
        if method not in self.BATCHES:
            return inner

        async def refuse(items: Sequence[Any], **_: Any) -> Sequence[TierError]:
            return [TierUnavailableError(self.name, "READONLY")] * len(items)

        return refuse


def server(name: str, clock: Clock, skew_us: int) -> ChaosCell:
    """Returns an empty server that could be the cell `name`, past its wait as a new issuer."""
    return ChaosCell(MemoryCell(name, clock, skew_us))
