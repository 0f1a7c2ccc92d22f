"""A committed transaction as events for the queue: one, unless it has very many names."""

from collections.abc import Iterator

from msgspec.structs import replace

from cachesvc.changes.consume import MOST_TARGETS
from cachesvc.changes.events.cloudevents import Transaction, encode_transaction
from cachesvc.changes.postgres.lsn import text_of
from cachesvc.changes.postgres.transactions import Committed
from cachesvc.config.service import Server
from cachesvc.model.change import Change

MOST_NAMES = Server().max_batch_keys
"""Keys and tags of one change at most: the default of `server.max_batch_keys`."""
MOST_TEXT = 2 << 20
"""Characters of the names of one event at most, well below what a queue takes at once."""


def events_of(committed: Committed, slot: str) -> list[bytes]:
    """Returns the events of a transaction; none if it concerns no namespace.

    Its changes are one event, which is applied as a whole, if they have at most `MOST_TARGETS` names.
    Else they are several, in order.
    """
    source = f"/postgres/{slot}/{committed.caller}" if committed.caller else f"/postgres/{slot}"
    parts = [*_parts(committed)]
    place = text_of(committed.commit_lsn)
    return [
        encode_transaction(
            part,
            id_=f"{slot}:{place}" if len(parts) == 1 else f"{slot}:{place}:{number}",
            source=source,
            committed_us=committed.committed_us,
            traceparent=committed.traceparent,
        )
        for number, part in enumerate(parts)
    ]


def _parts(committed: Committed) -> Iterator[Transaction]:
    together: list[Change] = []
    names = text = 0
    for change in committed.changes:
        for piece in _pieces(change):
            own_names, own_text = len(piece.keys) + len(piece.tags), sum(map(len, (*piece.keys, *piece.tags)))
            if together and (names + own_names > MOST_TARGETS or text + own_text > MOST_TEXT):
                yield Transaction(tuple(together))
                together, names, text = [], 0, 0
            together.append(piece)
            names, text = names + own_names, text + own_text
    if together or committed.faults:
        yield Transaction(tuple(together), committed.faults)


def _pieces(change: Change) -> Iterator[Change]:
    """Yields the change, in pieces that instances take."""
    if len(change.keys) + len(change.tags) <= MOST_NAMES:
        yield change
        return
    for tags in _slices(change.tags):
        yield replace(change, keys=(), tags=tags)
    for keys in _slices(change.keys):
        yield replace(change, keys=keys, tags=())


def _slices(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(names), MOST_NAMES):
        yield names[start : start + MOST_NAMES]
