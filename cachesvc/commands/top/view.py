"""The picture on a terminal: the verdict, then a table for each kind of row.

This is the only module that knows Rich's widths and colours.
"""

import time
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cachesvc.commands.top.picture import Picture
from cachesvc.commands.top.rows import ChangeRow, FeedRow, InstanceRow, NamespaceRow, OriginRow, ServerRow
from cachesvc.commands.top.units import count, rate, seconds, share, size, used
from cachesvc.commands.top.verdict import HEALTHY

SHOWN_NAMESPACES = 10
_BAD, _GOOD, _FAINT = "bold red", "bold green", "dim"


def view(picture: Picture, troubles: Sequence[str], changes: Sequence[ChangeRow]) -> RenderableType:
    """Everything that is shown; tables without rows are left out."""
    tables = [
        _instances(picture.instances),
        _servers(picture.servers),
        _feeds(picture.feeds),
        _lags(picture),
        _namespaces(picture.namespaces),
        _origins(picture.origins),
        _hot(picture),
        _changes(changes),
    ]
    return Group(verdict(troubles), *(table for table in tables if table.row_count))


def verdict(troubles: Sequence[str]) -> Text:
    if not troubles:
        return Text(HEALTHY, style=_GOOD)
    return Text("\n".join(troubles), style=_BAD)


def _instances(rows: Iterable[InstanceRow]) -> Table:
    table = _table(
        "instance",
        "state",
        "req/s",
        "p50",
        "p99",
        "hits",
        "L1",
        "evicted at age",
        "waiting",
        "shed/s",
        "topology",
    )
    for row in rows:
        if row.silent:
            table.add_row(row.name, Text("silent", style=_BAD))
            continue
        table.add_row(
            row.name,
            Text("ready", style=_GOOD) if row.ready else Text("not ready", style=_BAD),
            rate(row.requests),
            seconds(row.p50),
            seconds(row.p99),
            share(row.hit_ratio),
            used(row.l1_bytes, row.l1_budget),
            seconds(row.l1_eviction_age),
            count(row.in_progress),
            rate(row.shed),
            count(row.topology_version),
        )
    return table


def _servers(rows: Iterable[ServerRow]) -> Table:
    table = _table(
        "tier, server", "state", "asked/s", "p50", "p99", "hits", "errors/s", "bytes", "evictions/s"
    )
    for row in rows:
        table.add_row(
            Text(row.name.upper(), style="bold") if row.kind == "tier" else f"  {row.name}",
            _state_of(row),
            rate(row.asked),
            seconds(row.p50),
            seconds(row.p99),
            share(row.hit_ratio),
            rate(row.errors),
            used(row.bytes, row.limit),
            rate(row.evictions),
        )
    return table


def _state_of(row: ServerRow) -> Text:
    if row.kind == "tier":
        return Text("")
    if row.open_at:
        return Text(f"breaker open at {len(row.open_at)}", style=_BAD)
    return (
        Text(f"fails at {len(row.failing_at)}", style=_BAD)
        if row.failing_at
        else Text("answers", style=_GOOD)
    )


def _feeds(rows: Iterable[FeedRow]) -> Table:
    table = _table("feed of", "behind at most", "at", "state")
    for row in rows:
        odd = [f"{name}: {state}" for name, state in row.states.items() if state != "read"]
        table.add_row(
            row.region,
            seconds(row.bound),
            row.worst_at,
            Text(", ".join(odd), style=_BAD) if odd else "read by all",
        )
    return table


def _lags(picture: Picture) -> Table:
    table = _table("changes", "p50", "p99", "open", "parked", "dead letters/s")
    queue = (count(picture.queue.backlog), count(picture.queue.parked), rate(picture.queue.buried))
    for number, row in enumerate(picture.lags):
        table.add_row(
            f"until {row.stage}", seconds(row.p50), seconds(row.p99), *(("", "", "") if number else queue)
        )
    return table


def _namespaces(rows: Sequence[NamespaceRow]) -> Table:
    table = _table("namespace, worst first", "reads/s", "hits", "stale", "errors/s", "in L1", "max_lag")
    for row in rows[:SHOWN_NAMESPACES]:
        table.add_row(
            row.name,
            rate(row.reads),
            share(row.hit_ratio),
            share(row.stale),
            rate(row.errors),
            size(row.l1_bytes),
            seconds(row.max_lag),
        )
    return table


def _origins(rows: Iterable[OriginRow]) -> Table:
    table = _table("origin of", "loads/s", "p50", "p99", "running", "waiting", "refused/s")
    for row in rows:
        full = row.ceiling and row.running >= row.ceiling
        running = Text(
            f"{row.running:.0f} of {row.ceiling:.0f} at {row.worst_at}", style=_BAD if full else ""
        )
        table.add_row(
            row.namespace,
            rate(row.loads),
            seconds(row.p50),
            seconds(row.p99),
            running,
            count(row.waiting),
            rate(row.refused),
        )
    return table


def _hot(picture: Picture) -> Table:
    refused = (
        f" (token refused at {', '.join(picture.tokens_refused_at)})" if picture.tokens_refused_at else ""
    )
    table = _table(f"hot key{refused}", "of", "share", "reads/s")
    for row in picture.hot:
        table.add_row(Text(row.name), row.namespace, share(row.share), rate(row.reads))
    return table


def _changes(rows: Iterable[ChangeRow]) -> Table:
    table = _table("last changes", "region", "of", "what", "who", "through")
    for row in rows:
        at = time.strftime("%H:%M:%S", time.localtime(row.at))
        table.add_row(
            at,
            row.region,
            row.namespace,
            f"{row.targets} {row.how}".rstrip(),
            Text(row.who),
            Text(row.instance),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style=_FAINT)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(
            name, justify="left" if name in _WORDS else "right", no_wrap=name not in ("state", "what")
        )
    return table


_WORDS = ("state", "of", "at", "what", "who", "region", "through")
