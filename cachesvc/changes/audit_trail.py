"""The audit of one process: what its callers changed and were refused.

    what          recorded                          of it
    invalidate    every change that was accepted    how many targets, the receipt, how far it got
    operate       calls that show or change what    the operation
                  only operators may
    refused       calls of those who may not        the operation, the kind of problem; at most
                                                    `REFUSALS_A_SECOND`, two of them of one peer

The trail is a ring of bounded length, and each record is one structured log line too. It is as old
as the process; the `audit` stream of the region's queue has the changes of all instances and
producers (`audit.py`), and outlives them.

**Nothing in it can be forged.** The identity is one that was proved, and the address is the peer's.
The name that a caller gives itself stands apart from both (`says`). Every text from elsewhere is
made printable and cut before it is kept, so that neither a terminal nor a log line is led astray.
Keys and tags are counted and never named, as their text may be personal data, and a digest of a
key that can be guessed is its text.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from cachesvc.changes.audit import harmless
from cachesvc.changes.contract import Audit
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.requests import Author
from cachesvc.telemetry.logs.logs import AUDIT

log = logging.getLogger(AUDIT)

REFUSALS_A_SECOND = 20
"""The most refusals that are recorded in a second; the others are counted."""
REFUSALS_OF_ONE = 2
"""The most of these of one identity and address: one peer does not hide the others."""


class AuditRecord(Struct, frozen=True, omit_defaults=True):
    """One record of the audit."""

    number: int
    """Its number in the process, from 1."""
    at: int
    """µs since the epoch, by the instance's clock."""
    what: Literal["invalidate", "operate", "refused"]
    outcome: str
    """The end of the call: for a refusal, the kind of problem.

    For a change, how far it got: `done`, `parked` (a home cell missed it), or `open` (it is
    accepted, and the region's consumers go on with it).
    """
    identity: str = ""
    """The name of the identity that was proved; left out for an anonymous caller."""
    address: str = ""
    """The address of the peer."""
    says: str = ""
    """The name that the caller gave itself, in `Cachesvc-Caller` or as an event's `source`.

    It proves nothing.
    """
    operation: str = ""
    """The operation that was refused, or that an operator called."""
    namespace: str = ""
    targets: str = ""
    """The number of targets of a change, such as `2 keys, 1 tag` or `all`."""
    how: str = ""
    """`soft` or `over 5m`; left out for a change that is neither."""
    receipt: str = ""
    """The id of the change's receipt."""
    left_out: int = 0
    """Refusals before this one that were counted and not recorded: they were too many."""


class AuditTrail:
    """The last records of one process. Its calls do not wait, and raise nothing."""

    def __init__(self, region: str, clock: Clock, most: int, *, is_logged: bool) -> None:
        """`most`: the records that are kept; `is_logged`: each is written to the log, too."""
        self._region = region
        self._clock = clock
        self._is_logged = is_logged
        self._records: deque[AuditRecord] = deque(maxlen=most)
        self._second = 0
        self._refused: Counter[tuple[str, str]] = Counter()
        """The recorded refusals of this second by identity and address."""
        self._pending_left_out = 0
        self.recorded = 0
        """Records since the start."""
        self.left_out = 0
        """Refusals since the start that were not recorded."""

    def __repr__(self) -> str:
        return f"<AuditTrail [{len(self._records)} of {self.recorded}, {self.left_out} left out]>"

    @property
    def dropped(self) -> int:
        """Records that newer ones have displaced."""
        return self.recorded - len(self._records)

    def changed(self, audit: Audit, id_: str, state: str) -> None:
        """Records a change that a caller of this process made; others it passes over."""
        if not (audit.identity or audit.address):
            return
        self._note(
            "invalidate",
            state,
            Author(audit.identity, audit.address, audit.says),
            namespace=audit.namespace,
            targets=audit.targets,
            how=f"over {audit.over}" if audit.over else "soft" if audit.soft else "",
            receipt=f"{self._region}:{id_}",
        )

    def operated(self, author: Author, operation: str, namespace: str = "") -> None:
        """Records a call that shows or changes what only operators may."""
        self._note("operate", "done", _shown(author), operation=operation, namespace=namespace)

    def refused(self, author: Author, kind: str, attempted: Callable[[], tuple[str, str]]) -> None:
        """Records, or only counts, a call that was refused to its caller.

        `attempted` returns its operation and namespace; it is called if the refusal is recorded.
        """
        second = self._clock.now_us() // SECONDS
        if second != self._second:
            self._second = second
            self._refused.clear()
        shown = _shown(author)
        peer = (shown.identity, shown.address)
        if self._refused.total() >= REFUSALS_A_SECOND or self._refused[peer] >= REFUSALS_OF_ONE:
            self.left_out += 1
            self._pending_left_out += 1
            return
        self._refused[peer] += 1
        left_out, self._pending_left_out = self._pending_left_out, 0
        operation, namespace = map(harmless, attempted())
        self._note("refused", kind, shown, operation=operation, namespace=namespace, left_out=left_out)

    def find(
        self, *, namespace: str = "", identity: str = "", since_us: int = 0, limit: int = 100
    ) -> list[AuditRecord]:
        """Returns records, the newest first, at most `limit`. Empty texts ask for everything."""
        found: list[AuditRecord] = []
        for record in self._back_to(since_us):
            if len(found) >= limit:
                break
            if namespace in ("", record.namespace) and identity in ("", record.identity):
                found.append(record)
        return found

    def _back_to(self, since_us: int) -> Iterator[AuditRecord]:
        for record in reversed(self._records):
            if record.at < since_us:
                return
            yield record

    def _note(
        self,
        what: Literal["invalidate", "operate", "refused"],
        outcome: str,
        author: Author,
        *,
        operation: str = "",
        namespace: str = "",
        targets: str = "",
        how: str = "",
        receipt: str = "",
        left_out: int = 0,
    ) -> None:
        self.recorded += 1
        record = AuditRecord(
            self.recorded,
            self._clock.now_us(),
            what,
            outcome,
            author.identity,
            author.address,
            author.says,
            operation,
            namespace,
            targets,
            how,
            receipt,
            left_out,
        )
        self._records.append(record)
        if self._is_logged:
            log.info("audit", extra={"audit": msgspec.to_builtins(record)})


def _shown(author: Author) -> Author:
    return Author(harmless(author.identity), harmless(author.address), harmless(author.says))
