"""What the checker records: one line of JSON for each thing that happened, in the order it was noted.

Times are µs of one monotonic clock (the checker's own): moments of different processes are never compared. `as_of` alone is the
service's own time, µs since the epoch, and is there to be shown. A value is `key:w:checksum`, `w` counting the writes of its key.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO, Literal, TypeAlias

import msgspec
from msgspec import Struct


class Write(Struct, frozen=True, omit_defaults=True, tag="write"):
    """A new version at the origin. `w` of a key is 0 before its first write."""

    key: str
    w: int
    committed: int
    tags: tuple[str, ...] = ()
    """Of the value."""


class Announcement(Struct, frozen=True, omit_defaults=True, tag="announcement"):
    """Writes told to the cache: through the invalidate API of an instance, or as an event on a region's `changes`."""

    how: Literal["api", "event"]
    region: str
    """Whose queue took it."""
    instance: str
    """That was called, as `region/instance`; empty for an event."""
    writes: tuple[tuple[str, int], ...]
    """(key, w) that this announces."""
    started: int
    ended: int
    id: str = ""
    """Of the change, `eu:1700000000000-0`; empty if it was never accepted."""
    token: str = ""
    wait: Literal["none", "region", "global"] = "none"
    reached: bool = True
    """What `wait` asked for was said to hold."""
    failures: tuple[int, ...] = ()
    """When attempts of this announcement ended in an error (the queue was down, the instance gone)."""
    queue_down: bool = False
    """The attempts that failed did so because the queue took nothing: the instance said so (of an event it goes without saying).
    Only such an outage obliges caches to be fresh without having been told: while an instance alone is gone, they cannot know."""
    tags: tuple[str, ...] = ()
    """Not empty: announced by these tags and not by key."""


class Fenced(Struct, frozen=True, omit_defaults=True, tag="fenced"):
    """Where the fence of a change stands on its region's stream (from its receipt)."""

    id: str
    region: str
    position: str
    at: int = 0
    """The fence's own moment in the service's time, to be shown; 0: not told."""


class Merged(Struct, frozen=True, omit_defaults=True, tag="merged"):
    """An instance has merged a region's stream up to `position`. It did so at `at` or a little earlier."""

    instance: str
    region: str
    position: str
    at: int


class Load(Struct, frozen=True, omit_defaults=True, tag="load"):
    """The origin was asked for a value (by the service), or a caller loaded one under a lease."""

    key: str
    w: int
    started: int
    ended: int
    """Under a lease: no later than when the fill was sent off, since the lease may be another's before the answer is here."""
    lease: str = ""
    stored: bool | None = None
    """Look-aside: the fill was accepted. None: not known."""
    instance: str = ""


class Read(Struct, frozen=True, omit_defaults=True, tag="read"):
    instance: str
    """As `region/instance`."""
    key: str
    started: int
    ended: int
    outcome: str
    """`hit`, `stale`, `loaded`, `absent`, `miss` or `error`."""
    w: int | None = None
    """Of the value that was read; None if there was none. `absent` is what the key was before its first write: as if 0."""
    tier: str = ""
    """Who answered: `l1`, `l2`, `l3`, `origin`; `near` for a cache of the caller's own, which merges after its instance did."""
    as_of: int = 0
    lag: float | None = None
    """The staleness bound that the answer claimed, seconds."""
    session: str = ""
    """Reads of one session never go back. Empty: of none."""
    token_writes: tuple[tuple[str, int], ...] = ()
    """(key, w) of the writes whose tokens were sent along."""
    deadline_us: int = 0
    """What the read was allowed to take; 0: not limited."""
    reason: str = ""
    """Of an error: the problem's kind or the exception's name. `foreign`: the bytes are no value of this key."""

    @property
    def version(self) -> int | None:
        """The `w` that this read showed; None if it showed nothing."""
        return 0 if self.w is None and self.outcome == "absent" else self.w


class Fault(Struct, frozen=True, omit_defaults=True, tag="fault"):
    what: str
    started: int
    ended: int
    """When it was made good."""


class Run(Struct, frozen=True, omit_defaults=True, tag="run"):
    """The first line: what everything else is judged by."""

    seed: int
    instances: tuple[str, ...]
    """As `region/instance`."""
    max_lag_us: int
    heartbeat_us: int
    skew_us: int
    look_aside: bool = False


def region_of(instance: str) -> str:
    """`eu` of `eu/eu-a`."""
    return instance.partition("/")[0]


Record: TypeAlias = Run | Write | Announcement | Fenced | Merged | Load | Read | Fault

_MOST_AT_ONCE = 1_000
"""Records in one write to the file: what a checker that is killed can lose."""

encode: Callable[[Record], bytes] = msgspec.json.Encoder().encode
"""A record as its line of the history, without the newline."""

_decode: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode


class HistoryWriter:
    """Keeps every record in memory, for the judge, and appends it to a file, if there is one.

    `add` never blocks: the file belongs to a thread of its own, since a disk that stalls for a second would otherwise stall the
    loop whose reads are being timed. Making one (an earlier file of that name is replaced) and `close` do block: off the loop.
    `close` writes what is left and raises what the file raised; the records in memory are whole even then.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.records: list[Record] = []
        self._unwritten: SimpleQueue[Record | None] = SimpleQueue()
        """None: nothing comes after."""
        self._failure: OSError | None = None
        self._thread: Thread | None = None
        if path is not None:
            file = path.open("wb")
            self._thread = Thread(target=self._write, args=(file,), name="history-writer", daemon=True)
            self._thread.start()

    def __repr__(self) -> str:
        return f"<HistoryWriter: {len(self.records)} records, {self._unwritten.qsize()} unwritten>"

    def add(self, record: Record) -> None:
        self.records.append(record)
        if self._thread is not None and self._failure is None:
            self._unwritten.put(record)

    def close(self) -> None:
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
        """What is waiting, up to `None` and at most `_MOST_AT_ONCE`; waits for the first."""
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
    """What a file of records held."""

    records: tuple[Record, ...]
    cut_short: bool
    """The last line was not whole (its writer was killed), and is left out."""


class BadLineError(Exception):
    """A line of a history is no record."""


def read_history(path: Path) -> History:
    """The records of a file, in the order they were noted. Only its last line may be broken; any other raises `BadLineError`."""
    *lines, rest = path.read_bytes().split(b"\n")
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    # A line is whole once its newline is there. What a killed writer left without one may even parse (`12` of `1234`).
    return History(records=tuple(records), cut_short=bool(rest))


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        return _decode(line)
    except msgspec.DecodeError as error:
        raise BadLineError(f"{path}: line {number} is no record of a history: {error}") from error
