"""The verdict in words: everything that is wrong, the worst first.

Whatever an operator would be woken for makes the deployment not healthy.

silence, not ready          requests to the instance fail
a cell, a full server       its partitions have no L3, and writes to them are refused
a feed out of reach, late   copies older than max_lag are refused, or everything is loaded again
rivals, lost changes        one name means two things, or the queue was tampered with
settings that break a rule  old values may be answered
shedding, origins           callers are refused, or wait
memcached, parked changes   slower, not wrong
loops                       a part of an instance stands still
clocks, versions            about to become one of the above
settings that cost          copies, changes or writes are lost
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from statistics import median

from cachesvc.commands.top.picture import Picture
from cachesvc.commands.top.rows import FeedRow, NamespaceRow
from cachesvc.telemetry.troubles import (
    SILENT,
    loop_trouble,
    server_trouble,
    silent_cell,
    silent_memcached,
    silent_queue,
)

HEALTHY = "healthy"
CLOCKS_AGREE_SECONDS = 0.05
"""The greatest clock offset without a warning: half of the default `max_clock_skew`."""


def troubles(picture: Picture) -> Sequence[str]:
    """A sentence for each trouble; empty if the deployment is healthy."""
    found = [one for judge in _JUDGES for one in judge(picture)]
    untold = [*_untold(picture, found)]
    return [one for one in found if not any(_says_more(other, one) for other in untold)] + untold


def _says_more(trouble: str, said: str) -> bool:
    """True if a trouble repeats what was said of a silent server, with what to do about it."""
    server, silent, remedy = trouble.partition(SILENT)
    return bool(silent) and remedy.startswith(":") and said.startswith(server + silent)


def _untold(picture: Picture, found: Sequence[str]) -> Iterator[str]:
    """Yields the troubles of instances that no judge has said in the same words.

    An instance sees a cell that is away while no request uses the cell.
    """
    at: dict[str, list[str]] = {}
    for row in picture.instances:
        clocks = {server_trouble(one.server, one.why) for one in row.settings if one.need == "clock"}
        for one in row.troubles:
            if one not in clocks and not any(one in told for told in found):
                at.setdefault(one, []).append(row.name)
    yield from (f"{one} at {_names(names)}" for one, names in at.items())


def _silent(picture: Picture) -> Iterator[str]:
    if not picture.instances:
        yield "no instance is known"
    for row in picture.instances:
        if row.silent:
            yield f"{row.name} does not answer ({row.silent})"


def _not_ready(picture: Picture) -> Iterator[str]:
    for row in picture.instances:
        if not row.silent and not row.ready:
            yield f"{row.name} is not ready"


def _cells(picture: Picture) -> Iterator[str]:
    full = {one.server for row in picture.instances for one in row.conditions if one.need == "full"}
    for row in picture.servers:
        # A cell that is full fails, and answers: `_conditions` says so.
        failing_at = sorted({*row.failing_at, *row.open_at})
        if row.kind == "cell" and failing_at and f"cell {row.name}" not in full:
            yield f"{silent_cell(row.name)} at {_names(failing_at)}"


def _feeds(picture: Picture) -> Iterator[str]:
    for row in picture.feeds:
        if cut_off := [name for name, state in row.states.items() if state == "out of reach"]:
            yield f"{silent_queue(row.region)} at {_names(cut_off)}"
        if late := [one for one in picture.namespaces if _is_late(row, one)]:
            yield (
                f"feed of {row.region} is {row.bound:.1f} s behind at {row.worst_at},"
                f" above max_lag of {_busiest(late)}"
            )


def _is_late(feed: FeedRow, namespace: NamespaceRow) -> bool:
    return feed.bound is not None and namespace.max_lag is not None and feed.bound > namespace.max_lag


def _busiest(rows: Iterable[NamespaceRow]) -> str:
    """The name of the namespace with the most reads, and how many others there are."""
    first, *others = sorted(rows, key=lambda row: (-row.reads, row.name))
    return f"{first.name} and {len(others)} more" if others else first.name


def _rivals(picture: Picture) -> Iterator[str]:
    reasons = {why: kind for row in picture.instances for kind, why in row.rivals.items()}
    for why, kind in reasons.items():
        at = [row.name for row in picture.instances if kind in row.rivals]
        yield f"{_names(at)}: {why}"


def _lost(picture: Picture) -> Iterator[str]:
    if lost := max((row.changes_lost or 0 for row in picture.instances), default=0):
        yield (
            f"{lost:.0f} changes were taken out of a region's queue by somebody else since its instances "
            "started: everything was fenced"
        )


def _conditions(picture: Picture) -> Iterator[str]:
    found = {
        (one.server, one.need): server_trouble(one.server, one.why)
        for row in picture.instances
        for one in row.conditions
    }
    yield from found.values()


def _settings(effect: str) -> Callable[[Picture], Iterator[str]]:
    """A judge of the settings that servers lack, of those with this effect."""

    def judge(picture: Picture) -> Iterator[str]:
        found = {
            (one.server, one.need): server_trouble(one.server, one.why)
            for row in picture.instances
            for one in row.settings
            if one.effect == effect and one.need != "clock"  # `_clocks` says whose clock is wrong
        }
        yield from found.values()

    return judge


def _shedding(picture: Picture) -> Iterator[str]:
    for row in picture.instances:
        if row.shed:
            yield f"{row.name} is shedding ({row.shed:.0f} requests a second refused)"


def _origins(picture: Picture) -> Iterator[str]:
    for row in picture.origins:
        if row.refused:
            yield f"origin of {row.namespace} is too slow: {row.refused:.1f} loads a second got no turn"
        elif row.ceiling and row.running >= row.ceiling:
            loads = f"{row.running:.0f} loads, {row.waiting:.0f} wait"
            yield f"origin of {row.namespace} is at its ceiling at {row.worst_at} ({loads})"


def _memcached(picture: Picture) -> Iterator[str]:
    for row in picture.servers:
        if row.kind == "memcached" and row.open_at:
            yield f"{silent_memcached(row.name)} (breaker open at {_names(row.open_at)})"
        elif row.kind == "memcached" and row.failing_at:
            yield f"memcached {row.name} fails at {_names(row.failing_at)}"


def _servers(picture: Picture) -> Iterator[str]:
    for row in picture.servers:
        if row.twin_at:
            twin = f"cell {row.name} is the same server as another cell"
            yield f"{twin}, and is refused by {_names(row.twin_at)}"
        if row.servers:
            groups = " ".join(f"({_names(instances)})" for instances in row.servers)
            yield f"instances reach different servers as cell {row.name}: {groups}"


def _changes(picture: Picture) -> Iterator[str]:
    if picture.queue.parked:
        yield f"{picture.queue.parked:.0f} changes are parked: a home cell is out of reach"
    if picture.queue.overflowed:
        yield f"too much is parked for {picture.queue.overflowed:.0f} cells: all they hold will be fenced"
    if picture.queue.buried:
        yield "events are out of rule and become dead letters: invalidations that do not happen"


def _loops(picture: Picture) -> Iterator[str]:
    for row in picture.instances:
        loops = list(starmap(loop_trouble, row.loops.items()))
        if row.troubles:  # an instance leaves out the loops that wait for a server which it has named
            loops = [one for one in loops if one in row.troubles]
        if loops:
            yield f"{row.name}: {'; '.join(loops)}"


def _clocks(picture: Picture) -> Iterator[str]:
    wrong = [row for row in picture.instances if _is_clock_wrong(row.clock_offsets)]
    for one in wrong:
        off = -median(one.clock_offsets) * 1000
        yield f"the clock of {one.name} is {off:+.0f} ms off: all cells and queues disagree with it"
    if wrong:
        return  # the offsets below are the largest of all instances: these instances' own
    for feed in picture.feeds:
        if feed.clock_offset is not None and abs(feed.clock_offset) > CLOCKS_AGREE_SECONDS:
            yield f"the clock of the queue of {feed.region} is {feed.clock_offset * 1000:+.0f} ms off"
    for row in picture.servers:
        if row.clock_offset is not None and abs(row.clock_offset) > CLOCKS_AGREE_SECONDS:
            yield f"the clock of cell {row.name} is {row.clock_offset * 1000:+.0f} ms off"


def _is_clock_wrong(offsets: Sequence[float]) -> bool:
    """True if several clocks differ from one in the same direction."""
    return len(offsets) > 1 and (min(offsets) > CLOCKS_AGREE_SECONDS or max(offsets) < -CLOCKS_AGREE_SECONDS)


def _versions(picture: Picture) -> Iterator[str]:
    versions = {
        row.name: row.topology_version for row in picture.instances if row.topology_version is not None
    }
    if len(set(versions.values())) > 1:
        shown = ", ".join(f"{name}: {version:.0f}" for name, version in versions.items())
        yield f"instances work under different topologies ({shown})"


def _documents(picture: Picture) -> Iterator[str]:
    """Yields the versions of which instances have different documents."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in picture.instances:
        if row.document is not None:
            version, content = row.document
            found.setdefault(version, {}).setdefault(content, []).append(row.name)
    for version, contents in found.items():
        if len(contents) > 1:
            groups = " ".join(f"({_names(names)})" for names in contents.values())
            yield f"instances have different documents of version {version} of the topology: {groups}"


def _names(instances: Sequence[str]) -> str:
    return ", ".join(instances)


_JUDGES: Sequence[Callable[[Picture], Iterator[str]]] = (
    _silent,
    _not_ready,
    _cells,
    _conditions,
    _servers,
    _feeds,
    _rivals,
    _lost,
    _settings("stale"),
    _shedding,
    _origins,
    _memcached,
    _changes,
    _loops,
    _clocks,
    _versions,
    _documents,
    _settings("cost"),
)
