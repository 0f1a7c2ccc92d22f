"""An explanation as a page: the verdict, the facts, and tables of copies, fences and
instances."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cachesvc.explain.answer import Copy, Explanation, FencesSeen, Home, Seen, TargetFences
from cachesvc.model.clock import SECONDS

NOTHING = "–"
SHOWN_TAGS = 4


class Table(NamedTuple):
    """A table before it is laid out: every cell is text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def facts(found: Explanation) -> list[tuple[str, str]]:
    """The facts, as pairs of label and text."""
    listed = [
        ("key", f"{found.key} of {found.namespace} (owner: {found.owner or NOTHING})"),
        ("partition", found.partition),
    ]
    if (cell := found.home_cell) is not None:
        scores = ", ".join(f"{name} {score:g}" for name, score in cell.scores.items())
        former = f"; before it moved: {cell.former}" if cell.former else ""
        place = f" at {cell.master}" if cell.master else ""
        listed.append(("home cell", f"{cell.name} in {cell.region}{place}, {cell.why} ({scores}){former}"))
    if (memcached := found.memcached) is not None:
        breaker = f"; its breaker is {memcached.breaker}" if memcached.breaker not in ("", "closed") else ""
        listed.append(("memcached", f"{memcached.server}: {memcached.why}{breaker}"))
    if found.home is not None:
        listed.append(("lease", _lease(found.home, found.clock)))
    if found.fences is not None:
        listed += _limits(found.fences, found.clock)
    if found.now is not None:
        listed.append(("rule", f"docs/concepts.md, {found.now.section}"))
    return listed


def _lease(home: Home, now: int) -> str:
    if home.unavailable:
        return f"not known: {home.unavailable}"
    told = f" (told by {home.told_by})" if home.told_by else ""
    if home.lease is None:
        return f"nobody holds it{told}"
    holder = home.lease.holder or "somebody outside the topology"
    return f"held by {holder}, ends {when(home.lease.until, now)}{told}"


def _limits(fences: FencesSeen, now: int) -> Iterator[tuple[str, str]]:
    yield "bound", f"{fences.staleness_bound_seconds:.1f} s (max_lag {fences.max_lag_seconds:g} s)"
    if fences.floor:
        yield "floor", f"{when(fences.floor, now)}: {fences.floor_why}"


def copies(found: Explanation) -> Table:
    """The copies: a row for each place, also for a place that holds none."""
    rows = [_copy_row(place, copy) for place, copy in _places(found)]
    return Table(
        "copies", ("where", "standing", "age", "fresh for", "version", "bytes", "tags", "note"), rows
    )


def _places(found: Explanation) -> Iterator[tuple[str, Copy]]:
    asked = _asked(found)
    everybody = (asked, *(seen for seen in found.elsewhere if not seen.unavailable))
    for seen in everybody:
        if "l1" in seen.tiers:
            yield f"l1 {seen.name}", seen.tiers["l1"]
    pools = {seen.region: seen for seen in reversed(everybody) if "l2" in seen.tiers}
    for region, seen in sorted(pools.items()):
        server = seen.memcached.server if seen.memcached else ""
        yield f"l2 {region} {server}", seen.tiers["l2"]
    if "l3" in found.tiers:
        yield f"l3 {found.home_cell.name if found.home_cell else ''}", found.tiers["l3"]


def _asked(found: Explanation) -> Seen:
    region, _, instance = found.asked.partition("/")
    return Seen(
        region, instance, tiers=found.tiers, memcached=found.memcached, fences=found.fences, now=found.now
    )


def _copy_row(place: str, copy: Copy) -> Sequence[str]:
    if not copy.held:
        standing = "nothing" if copy.held is False else "not known"
        return (place, standing, *[NOTHING] * 5, copy.unavailable)
    notes = (
        *(f"refused by {reason}" for reason in copy.refused_by),
        copy.differs,
        "" if copy.suits else "not what was asked for",
    )
    return (
        place,
        f"{copy.standing}, known absent" if copy.negative else copy.standing,
        f"{copy.age_seconds:.1f} s",
        f"{copy.ttl_seconds:.1f} s",
        copy.etag.strip('"'),
        str(copy.bytes),
        _tags(copy.tags),
        "; ".join(note for note in notes if note),
    )


def _tags(tags: Sequence[str]) -> str:
    more = f" and {len(tags) - SHOWN_TAGS} more" if len(tags) > SHOWN_TAGS else ""
    return ", ".join(tags[:SHOWN_TAGS]) + more or NOTHING


def fences(found: Explanation) -> Table:
    """The fences: a row for each target that was fenced."""
    seen = found.fences
    rows = [_fence_row(one, seen, found.clock) for one in seen.targets if _is_fenced(one)] if seen else []
    columns = ("on", "at home", "here, at least", "soft, at home", "soft, here", "merged here", "note")
    return Table("fences, newest of each target", columns, rows)


def _is_fenced(one: TargetFences) -> bool:
    return any((one.at_home, one.soft_at_home, one.here, one.soft_here, one.unapplied, one.paced))


def _fence_row(one: TargetFences, seen: FencesSeen, now: int) -> Sequence[str]:
    merge = next((merge for merge in seen.merges if merge.target == one.target), None)
    if merge is not None:
        way = "issued here" if merge.came == "here" else f"feed of {merge.came}"
        merged = f"{when(merge.merged_at, now)}, {way}"
    else:
        merged = (
            f"before {when(seen.merges_forgotten_until, now)}" if seen.merges_forgotten_until else NOTHING
        )
    notes = [f"paced over {window.over_seconds:g} s, due {when(window.due, now)}" for window in one.paced]
    notes += ["not applied at home"] * bool(one.unapplied) + [
        "perhaps another target's (sketch)"
    ] * one.perhaps_collision
    ats = (one.at_home, one.here, one.soft_at_home, one.soft_here)
    return (one.target, *(NOTHING if not at else when(at, now) for at in ats), merged, "; ".join(notes))


def instances(found: Explanation) -> Table:
    """The instances: what a read would do at each."""
    rows = [_instance_row(seen) for seen in (_asked(found), *found.elsewhere)]
    return Table("what a read would do", ("at", "it would", "bound", "note"), rows)


def _instance_row(seen: Seen) -> Sequence[str]:
    if seen.now is None or seen.fences is None:
        return (seen.name, "not known", NOTHING, seen.unavailable)
    return (seen.name, seen.now.a_read_would, f"{seen.fences.staleness_bound_seconds:.1f} s", seen.now.but)


def when(at: int, now: int) -> str:
    """A time relative to `now`, both in µs: `in 3.0 s`, `1.2 s ago`."""
    seconds = (at - now) / SECONDS
    return f"in {seconds:.1f} s" if seconds > 0 else f"{-seconds:.1f} s ago"
