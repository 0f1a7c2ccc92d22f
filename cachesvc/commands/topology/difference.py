"""Compares two topology documents: what changes, when, and what docs/moving.md forbids."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.commands.topology.moves import (
    KeyMove,
    Move,
    both,
    moves_of_given,
    moves_of_keys,
    moves_of_partitions,
)
from cachesvc.config.live import Path, changed, is_live
from cachesvc.config.topology import Topology
from cachesvc.model.entry import Key
from cachesvc.tiers.l3.placement import Placement, as_it_was
from cachesvc.web.replies.redaction import HIDDEN, shown_topology

ABSENT = "–"


class Change(Struct, frozen=True):
    """A field that differs."""

    path: str
    before: str
    after: str
    """Both as people write them; `–` if the field is not there."""
    when: Literal["at once", "after a restart"]


class Refusal(Struct, frozen=True):
    """A reason why the document must not be rolled out."""

    path: str
    why: str


class Difference(Struct, frozen=True):
    """Everything that another document changes."""

    version: tuple[int, int]
    changes: Sequence[Change]
    partitions: Sequence[Move]
    keys: Sequence[Move]
    given: Sequence[KeyMove]
    refused: Sequence[Refusal]
    notes: Sequence[str]
    """Sentences about changes that are allowed and have a price."""
    steps: Sequence[str]
    """The rest of the work, in order."""


def difference(before: Topology, after: Topology, keys: Iterable[Key] = ()) -> Difference:
    """Returns what `after` changes; `keys` are looked at one by one."""
    paths = [path for path in changed(before, after) if path[0] not in ("version", "former")]
    was, now = shown_topology(before), shown_topology(after)
    moves = Placement(before).id != Placement(after).id
    refused = list(_refusals(before, after, paths, moves=moves))
    return Difference(
        version=(before.version, after.version),
        changes=[
            Change(
                ".".join(path),
                _shown(was, path),
                _shown(now, path),
                "at once" if is_live(path) else "after a restart",
            )
            for path in paths
        ],
        partitions=moves_of_partitions(before, after) if moves else (),
        keys=list(moves_of_keys(before, after)),
        given=list(moves_of_given(before, after, keys)),
        refused=refused,
        notes=list(_notes(before, after)),
        steps=() if refused else list(_steps(before, after, paths, moves=moves)),
    )


def _shown(document: object, path: Path) -> str:
    if path[0] == "callers":
        return HIDDEN
    for field in path:
        if not isinstance(document, dict) or field not in document:
            return ABSENT
        document = document[field]
    return document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)


def _refusals(before: Topology, after: Topology, paths: Sequence[Path], *, moves: bool) -> Iterator[Refusal]:
    waits = [path for path in paths if not is_live(path)]
    if after.version < before.version:
        yield Refusal("$.version", f"is {after.version}, and {before.version} is in force: never go back")
    elif after.version == before.version and (waits or before.former != after.former):
        why = f"must be above {before.version}: cells and instances would not notice the change"
        yield Refusal("$.version", why)
    if before.callers is not None and after.callers is None:
        yield Refusal("$.callers", "is gone: instances that run would keep the callers of before")
    if not moves:
        if after.former is not None and before.former != after.former:
            yield Refusal("$.former", "is new, but no partition moves: leave it out")
        return
    if before.former is not None:
        why = "an earlier move is under way: end it first, by a version without `former`"
        yield Refusal("$.former", why)
    elif after.former is None:
        gone = [name for name in _homes(before) if name not in after.cells]
        kept = f" and keep {', '.join(gone)} under cells, with `active: false`" if gone else ""
        yield Refusal("$.former", f"is missing, and partitions move: write this{kept}\n{former_of(before)}")
    elif Placement(as_it_was(after)).id != Placement(before).id:
        why = f"is not where partitions are now: write this\n{former_of(before)}"
        yield Refusal("$.former", why)


def former_of(topology: Topology) -> str:
    """Returns the lines of `former` that say where partitions are under this topology."""
    active = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
    lines = ["former:", f"  cells: {json.dumps(active)}"]
    if topology.pins:
        lines.append(f"  pins: {json.dumps(topology.pins)}")
    if prefixes := {name: one.partitions for name, one in topology.regions.items() if one.partitions}:
        lines.append(f"  partitions: {json.dumps(prefixes)}")
    return "\n".join(lines)


def _homes(topology: Topology) -> Sequence[str]:
    return Placement(topology).cells


def _notes(before: Topology, after: Topology) -> Iterator[str]:
    for name in both(before.cells, after.cells):
        if before.cells[name].url != after.cells[name].url:
            yield (
                f"cell {name} gets another address. Another server there is a new issuer: it begins empty, "
                "and instances of both documents differ (docs/operate.md, Replacing a cell's server)"
            )
    for name in both(before.regions, after.regions):
        was, now = before.regions[name], after.regions[name]
        if was.queue != now.queue:
            yield (
                f"region {name} gets another queue. While instances use both, no wait ends and the staleness "
                "bound grows (docs/operate.md, Replacing a queue)"
            )
        for server in both(was.pool, now.pool):
            if was.pool[server].address != now.pool[server].address:
                yield (
                    f"memcached {server} of {name} gets another address: keep the old server until"
                    " cachesvc_warming_up is 0 (l2.warm_up), its keys are copied from there"
                )
        if was.pool and not now.pool:
            yield f"region {name} has no L2 any more"
    for name in (name for name in before.regions if name not in after.regions):
        yield f"region {name} goes: its instances must have ended, as others do not hear their fences"
    for name in (name for name in before.namespaces if name not in after.namespaces):
        yield f"namespace {name} goes: its requests are refused with 404, its copies end with their TTL"


def _steps(before: Topology, after: Topology, paths: Sequence[Path], *, moves: bool) -> Iterator[str]:
    waits = [path for path in paths if not is_live(path)] or before.former != after.former
    if before.former is not None and after.former is None:
        yield (
            "begin only when l3.retention (1h by default) has passed since the last instance has version "
            f"{before.version}: until then copies of the former homes may be left"
        )
    if waits:
        yield "restart the instances with the document, one after the other, in any order"
    elif paths:
        yield "put the document in the place of the old one everywhere: it is in force a second later"
    if moves:
        yield "wait l3.retention (1h by default) from the moment at which the last instance has it"
        done = replace(after, version=after.version + 1, former=None)
        gone = [name for name in after.cells if name not in _homes(done)]
        without = f" and {', '.join(gone)}" if gone else ""
        yield f"raise the version to {done.version}, without `former`{without}, and restart once more"
