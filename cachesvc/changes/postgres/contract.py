"""The contracts of a server of PostgreSQL, as a reader of a slot uses it.

Every method may fail with a `TierError`. `server.py` keeps them on a real server.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from msgspec import Struct

from cachesvc.changes.events.rows import RowMapping
from cachesvc.model.errors import TierError, TierUnavailableError


class SlotInUseError(TierUnavailableError):
    """Another reader has the slot."""


class RefusedError(TierError):
    """The server answered with an error."""

    def __init__(self, where: str, why: str, code: str) -> None:
        super().__init__(where, why)
        self.code = code
        """The code of SQL for it, such as `42704`."""


class System(Struct, frozen=True):
    """The server's answer to who it is."""

    identifier: str
    """The number that `initdb` gave to the cluster; its replicas have the same."""
    timeline: int
    """The number of the history of the log; a replica that is promoted begins another one."""
    database: str


class SlotState(Struct, frozen=True):
    """A slot, as the server describes it."""

    confirmed_lsn: int
    """Everything up to here is confirmed, and is not sent again."""
    current_lsn: int
    """The end of the log."""
    wal_status: str = "reserved"
    """`reserved`, `extended`, `unreserved` or `lost`."""
    safe_bytes: int | None = None
    """Bytes that may be written until the slot is in danger; None if nothing limits them."""

    @property
    def lag_bytes(self) -> int:
        return max(self.current_lsn - self.confirmed_lsn, 0)


class Data(Struct, frozen=True, gc=False):
    """A message of the plugin."""

    message: bytes


class Keepalive(Struct, frozen=True, gc=False):
    """A word of the server that it has sent everything up to here."""

    end_lsn: int
    wants_answer: bool


Received: TypeAlias = Data | Keepalive


class Catalog(Protocol):
    """One connection for ordinary SQL."""

    async def is_replica(self) -> bool:
        """True if the server does not take writes."""
        ...

    async def mistakes(self, publication: str, mapping: RowMapping) -> Sequence[str]:
        """Returns what keeps the publication from telling all that `sources` need to know."""
        ...

    async def slot(self, name: str) -> SlotState | None:
        """Returns the slot; None if there is none of this name."""
        ...

    async def make_slot(self, name: str) -> None:
        """Makes a slot, which has every commit from now on."""
        ...

    async def drop_slot(self, name: str) -> None: ...

    async def snapshot(self) -> str:
        """Returns which transactions are visible now: `xmin:xmax:xid,xid` (`is_visible`)."""
        ...


class Replication(Protocol):
    """One connection that reads a slot. Used by one task at a time, except `confirm`."""

    async def identify(self) -> System:
        """Asks the server who it is."""
        ...

    async def start(self, slot: str, publication: str) -> None:
        """Takes the slot, from what is confirmed on.

        Raises `SlotInUseError` if another reader has it, and `RefusedError` if the server refuses.
        """
        ...

    async def read(self) -> Sequence[Received]:
        """Returns what has come; waits until something has."""
        ...

    def confirm(self, lsn: int, *, ask: bool = False) -> None:
        """Tells the server that everything up to `lsn` need not be sent again.

        `ask`: the server is to send a word at once, so that its silence is noticed.
        """
        ...


class Server(Protocol):
    """A database."""

    where: str
    """Its name for people, without a password."""

    def catalog(self) -> AbstractAsyncContextManager[Catalog]:
        """Connects for the length of a block."""
        ...

    def replication(self) -> AbstractAsyncContextManager[Replication]:
        """Connects for the length of a block."""
        ...
