"""The server that issues a cell's fences and leases, as one instance knows it.

A cell has one name, and in time more than one server: one is promoted, a name in DNS moves, a
document is edited. Two of them may live and issue at the same time, and each instance may have
connections to another one. So servers are told apart by a number, and an instance notes which one
is behind its own connections:

- A fence names the servers that applied it. One that was applied by another server than the
  instance's own is not known at the instance's home (`coherence/fences.py`).
- Fences that were merged before the instance met its server may have been applied by the one
  before. So copies that were loaded before that moment are not exact (`exact_from`).
- A reply on a connection to a server that was left meanwhile is not exact at all.
"""

from collections.abc import Mapping

from cachesvc.model.digest import digest

NEVER = 1 << 62
"""µs: no copy has so late an `as_of`."""
_MASK = (1 << 48) - 1


def issuer_of(run_id: str, replication_id: str, database: str | int) -> int:
    """Returns the number of a server, 48 bits and never 0.

    The run id is of one process. The replication id changes whenever the process has been a replica:
    it may have taken over data that are older than its own. A server's databases are apart.
    """
    return digest(f"{run_id} {replication_id} {database}".encode()) & _MASK or 1


class Issuer:
    """The server behind an instance's connections to one cell."""

    def __init__(self, skew_us: int) -> None:
        self._skew_us = skew_us
        self.id = 0
        """The number of the server that was met last; 0 before the first."""
        self.met_at = 0
        """When it was met, µs by its own clock."""
        self.changes = 0
        """Times that another server than before was met, the first not counted."""

    def __repr__(self) -> str:
        return f"<Issuer {self.id:012x} [{self.changes} changes]>"

    def meet(self, id_: int, now_us: int) -> None:
        """Notes the server of a connection that has just been made; `now_us` by its clock."""
        if id_ == self.id:
            return
        self.changes += self.id != 0
        self.id, self.met_at = id_, now_us

    def exact_from(self, id_: int, broken_at: int, now_us: int) -> int:
        """Returns the `as_of`, µs, up to which copies of a reply are not exact.

        `id_`: the server of the connection that brought the reply. `broken_at` and `now_us`: what the
        server says itself. What was loaded after the server was met has an `as_of` that is at most 2 S
        later than the beginning of the load: S for a lease behind a fence, S for the clock before a
        failover. If the server's clock was ahead then and is set right, the server is met anew: its
        copies would not be exact for as long as that clock was ahead.
        """
        if id_ == self.id and self.met_at > now_us + self._skew_us:
            self.met_at = now_us
        return max(broken_at, self.met_at + 2 * self._skew_us + 1000) if id_ == self.id else NEVER


def twin_of(name: str, id_: int, issuers: Mapping[str, Issuer]) -> str:
    """Returns the name of another cell that is on the same server; empty if there is none."""
    return next((other for other, issuer in issuers.items() if issuer.id == id_ and other != name), "")
