"""The difference of two topology documents in words, for a terminal."""

from collections.abc import Iterator, Sequence

from cachesvc.commands.top.units import rate, size
from cachesvc.commands.topology.difference import Change, Difference
from cachesvc.commands.topology.forecast import Forecast
from cachesvc.commands.topology.moves import Move
from cachesvc.model.printable import printable

GIVEN_SHOWN = 20
"""The most keys that are shown one by one."""


def page(found: Difference) -> str:
    """Returns the page; empty if nothing changes."""
    return "\n".join(printable(line, keep="\n") for line in _lines(found))


def _lines(found: Difference) -> Iterator[str]:
    was, now = found.version
    if was != now:
        yield f"version {was} → {now}"
    for when in ("at once", "after a restart"):
        if changes := [change for change in found.changes if change.when == when]:
            yield f"\nIn force {when}:"
            yield from (f"  {_change(change)}" for change in changes)
    if found.partitions:
        yield f"\nPartitions that move: {_total(found.partitions)} (of names that were tried)"
        yield from _moves(found.partitions)
    for region in dict.fromkeys(move.where for move in found.keys):
        moves = [move for move in found.keys if move.where == region]
        yield f"\nKeys of {region} that change their memcached server: {_total(moves)}"
        yield from _moves(moves)
    if found.given:
        yield f"\nOf the given keys, {len({move.key for move in found.given})} move:"
        for move in found.given[:GIVEN_SHOWN]:
            where = f" in {move.where}" if move.where else ""
            yield f"  {move.key}{where}: {move.before} → {move.after}"
        if (more := len(found.given) - GIVEN_SHOWN) > 0:
            yield f"  … and {more} more (--json has all)"
    if found.partitions or found.keys:
        yield from _expected(found.expected)
    if found.notes:
        yield "\nMind:"
        yield from (f"  - {note}" for note in found.notes)
    if found.refused:
        yield "\nRefused:"
        for refusal in found.refused:
            yield "  - {} {}".format(refusal.path, refusal.why.replace("\n", "\n      "))
    if found.steps:
        yield "\nSteps:"
        yield from (f"  {number}. {step}" for number, step in enumerate(found.steps, 1))


def _expected(found: Forecast | None) -> Iterator[str]:
    if found is None:
        yield "\nLoads and bytes that this brings: unknown (--from URL asks the instances what they measure)"
        return
    who = f"{len(found.instances)} instance{'s' * (len(found.instances) != 1)}"
    yield f"\nTo expect, by what {who} measured in {found.seconds:.3g} s:"
    for name, why in found.silent.items():
        yield f"  {name} does not answer ({why}): its reads are missing"
    if not found.loads:
        yield "  no extra loads: no read that moves was answered by L3"
    for one in found.loads:
        where = f" in {one.region}" if one.region else ""
        budget = "no budget" if one.budget is None else f"budget {rate(one.budget)}"
        over = ", TOO MANY" * one.is_over
        warm = "" if one.extra else f" ({rate(one.moved)} reads/s are answered by former homes)"
        loads = f"{rate(one.now)} + {rate(one.extra)} loads/s at first"
        yield f"  {one.namespace}{where}: {loads}{warm}; {budget}{over}"
    for server in found.bytes:
        limit = "limit not known" if server.limit is None else f"limit {size(server.limit)}"
        over = ", TOO MANY" * server.is_over
        has = size(server.has or 0.0)
        yield f"  {server.server}: has {has}, takes {size(server.takes)}; {limit}{over}"


def _change(change: Change) -> str:
    if change.before == change.after:
        return f"{change.path}: changed (not shown)"
    return f"{change.path}: {change.before} → {change.after}"


def _total(moves: Sequence[Move]) -> str:
    return f"{sum(move.share for move in moves):.1%}"


def _moves(moves: Sequence[Move]) -> Iterator[str]:
    return (f"  {move.before} → {move.after}  {move.share:.1%}" for move in moves)
