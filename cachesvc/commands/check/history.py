"""The checker's history: one line of JSON for each thing that happened, in the order it
was noted.

Times are µs of one monotonic clock, the checker's own: clocks of different processes are never
compared. Only `as_of` and `at` of a fence are the service's own time, µs since the epoch, and are
only shown. A value is `key:w:checksum`, where `w` counts the writes of its key.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO, Literal, TypeAlias

import msgspec
from msgspec import Struct


class Write(Struct, frozen=True, omit_defaults=True, tag="write"):
    """One write of a key at the origin. `w` counts the key's writes: 1 for the first."""

    key: str
    w: int
    committed: int
    tags: tuple[str, ...] = ()
    """The tags of the value."""


class Announcement(Struct, frozen=True, omit_defaults=True, tag="announcement"):
    """Writes announced to the cache.

    By an invalidate call to an instance, by an event on a region's `changes`, or by a put of the
    written value at an instance.
    """

    how: Literal["api", "event", "put"]
    region: str
    """The region whose queue took it."""
    instance: str
    """The instance that was called, as `region/instance`; empty for an event."""
    writes: tuple[tuple[str, int], ...]
    """The writes that are announced, as pairs (key, w)."""
    started: int
    ended: int
    id: str = ""
    """The change's id, such as `eu:1700000000000-0`; empty if it was never accepted.

    The caller of a put is told no id: it is `put:key:w`."""
    token: str = ""
    wait: Literal["none", "region", "global"] = "none"
    reached: bool = True
    """True if the answer said that the wait was fulfilled."""
    announced: bool = True
    """False if the answer said that the instance keeps it in its journal."""
    failures: tuple[int, ...] = ()
    """The times at which failed attempts began (the queue was down, the instance gone)."""
    failed_in: tuple[str, ...] = ()
    """The regions in which these attempts were made."""
    queue_down: bool = False
    """True if every failed attempt failed because the queue took nothing. For a call the
    instance said so; for an event it is always the case. Only such an outage obliges caches to
    refuse copies without having been told: while only an instance is gone, they cannot know."""
    tags: tuple[str, ...] = ()
    """The tags that were announced instead of keys; empty if keys were."""


class Fenced(Struct, frozen=True, omit_defaults=True, tag="fenced"):
    """The position of a change's fence on its region's stream, from the change's receipt."""

    id: str
    region: str
    position: str
    at: int = 0
    """The fence's own time, in the service's time; 0 if it is not known. Only shown."""


class Merged(Struct, frozen=True, omit_defaults=True, tag="merged"):
    """An instance had merged a region's stream up to `position` at `at`, or a little earlier."""

    instance: str
    region: str
    position: str
    at: int


class Load(Struct, frozen=True, omit_defaults=True, tag="load"):
    """The service loaded a value from the origin, or a caller loaded one under a lease."""

    key: str
    w: int
    started: int
    ended: int
    """The end of the load. Under a lease: not later than the start of the fill, since the
    lease may be another caller's before the fill is answered."""
    lease: str = ""
    stored: bool | None = None
    """True if a look-aside fill was accepted, False if it was refused, None if that is not
    known."""
    instance: str = ""


class Read(Struct, frozen=True, omit_defaults=True, tag="read"):
    """One read of one key, and its answer."""

    instance: str
    """The name as `region/instance`."""
    key: str
    started: int
    ended: int
    outcome: str
    """`hit`, `stale`, `loaded`, `absent`, `miss` or `error`."""
    w: int | None = None
    """The version that was read; None if no value was. `absent` counts as version 0, the state
    of a key before its first write."""
    tier: str = ""
    """The tier that answered: `l1`, `l2`, `l3` or `origin`; `near` for a cache of the caller's
    own, which merges after its instance did."""
    as_of: int = 0
    lag: float | None = None
    """The staleness bound in the answer, in seconds."""
    session: str = ""
    """The session that the read belongs to; empty if to none. Reads of one session never go
    back."""
    token_writes: tuple[tuple[str, int], ...] = ()
    """The writes, as pairs (key, w), whose tokens were sent with the read."""
    deadline_us: int = 0
    """The read's deadline in µs; 0 if it had none."""
    reason: str = ""
    """The problem's kind or the exception's name, if the read failed. `foreign`: the bytes are
    not a value of this key."""

    @property
    def version(self) -> int | None:
        """The version that this read showed; None if it showed none."""
        return 0 if self.w is None and self.outcome == "absent" else self.w


class Fault(Struct, frozen=True, omit_defaults=True, tag="fault"):
    """One thing that was broken on purpose, and the time for which it was."""

    what: str
    started: int
    ended: int
    """The time at which the fault was removed."""


class Run(Struct, frozen=True, omit_defaults=True, tag="run"):
    """The first record: the instances of the run, and the bounds that everything is judged by."""

    seed: int
    instances: tuple[str, ...]
    """As `region/instance`."""
    max_lag_us: int
    heartbeat_us: int
    skew_us: int
    look_aside: bool = False


def region_of(instance: str) -> str:
    """The region of an instance's name: `eu` for `eu/eu-a`."""
    return instance.partition("/")[0]


Record: TypeAlias = Run | Write | Announcement | Fenced | Merged | Load | Read | Fault

_MOST_AT_ONCE = 1_000
"""The most records in one write to the file: a checker that is killed can lose so many."""

encode: Callable[[Record], bytes] = msgspec.json.Encoder().encode
"""Returns a record as its line of the history, without the newline."""

_decode: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode


class HistoryWriter:
    """Keeps every record in memory for the judge, and appends it to a file if there is one.

    `add` never blocks: a thread of its own writes the file, because a disk that stalls for a
    second would stall the loop whose reads are timed. The constructor (which replaces a file of
    that name) and `close` do block and must not be called on the loop. `close` writes what is
    left and raises the `OSError` that writing raised; the records in memory are complete even
    then.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.records: list[Record] = []
        self._unwritten: SimpleQueue[Record | None] = SimpleQueue()
        """None marks the end."""
        self._failure: OSError | None = None
        self._thread: Thread | None = None
        if path is not None:
            file = path.open("wb")
            self._thread = Thread(target=self._write, args=(file,), name="history-writer", daemon=True)
            self._thread.start()

    def __repr__(self) -> str:
        return f"<HistoryWriter: {len(self.records)} records, {self._unwritten.qsize()} unwritten>"

    def add(self, record: Record) -> None:
        """Keeps a record. Never blocks."""
        self.records.append(record)
        if self._thread is not None and self._failure is None:
            self._unwritten.put(record)

    def close(self) -> None:
        """Writes what is left. Raises the `OSError` of the file. Blocks. A second call does
        nothing."""
        if self._thread is None:
            return
        self._unwritten.put(None)
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise self._failure

    def _write(self, file: BinaryIO) -> None:
        try:
            with file:
                while batch := self._next_batch():
                    file.write(_lines(record for record in batch if record is not None))
                    file.flush()
                    if batch[-1] is None:
                        return
        except OSError as error:
            self._failure = error

    def _next_batch(self) -> list[Record | None]:
        """The waiting records: at most `_MOST_AT_ONCE`, and none after a `None`. Waits for the
        first."""
        batch = [self._unwritten.get()]
        while batch[-1] is not None and len(batch) < _MOST_AT_ONCE:
            try:
                batch.append(self._unwritten.get_nowait())
            except Empty:
                break
        return batch


def _lines(records: Iterable[Record]) -> bytes:
    return b"".join(encode(record) + b"\n" for record in records)


class History(Struct, frozen=True):
    """The content of a history file."""

    records: tuple[Record, ...]
    cut_short: bool
    """True if the last line was incomplete (its writer was killed) and was left out."""


class BadLineError(Exception):
    """A line of a history is not a record."""


def read_history(path: Path) -> History:
    """Reads the records of a file, in the order they were noted.

    Only the last line may be broken; any other broken line raises `BadLineError`.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    # A line is complete once its newline is there: a part of a line may parse as well (`12` of `1234`).
    return History(records=tuple(records), cut_short=bool(rest))


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        return _decode(line)
    except msgspec.DecodeError as error:
        raise BadLineError(f"{path}: line {number} is no record of a history: {error}") from error
