"""The picture on a terminal: the verdict, then a table for each kind of row.

On a terminal everything fits (`fitting.py`): the verdict first, then so many rows of each table as
there is room for, the wrong ones first. Output to a pipe or a file has every row.
"""

import time
from collections.abc import Iterable, Sequence

from rich.text import Text

from cachesvc.commands.top.fitting import Sheet, View
from cachesvc.commands.top.picture import Picture
from cachesvc.commands.top.rows import ChangeRow, FeedRow, InstanceRow, NamespaceRow, OriginRow, ServerRow
from cachesvc.commands.top.units import count, rate, seconds, share, size, used
from cachesvc.commands.top.verdict import HEALTHY

SHOWN_NAMESPACES = 10
_BAD, _GOOD = "bold red", "bold green"


def view(picture: Picture, troubles: Sequence[str], changes: Sequence[ChangeRow]) -> View:
    """Everything that is shown; tables without rows are left out."""
    sheets = [
        _instances(picture.instances),
        _servers(picture.servers),
        _feeds(picture.feeds),
        _lags(picture),
        _namespaces(picture.namespaces),
        _origins(picture.origins),
        _hot(picture),
        _changes(changes),
    ]
    if not troubles:
        return View([Text(HEALTHY, style=_GOOD)], sheets)
    return View([Text(one, style=_BAD) for one in troubles], sheets)


def _instances(rows: Sequence[InstanceRow]) -> Sheet:
    """Returns the table of instances, in which workers stand under their host."""
    table = Sheet(
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
        spare=("topology", "evicted at age", "waiting", "L1", "p50", "hits", "shed/s"),
    )
    hosts = {row.name: _host_of(row, rows) for row in rows}
    shown = ""
    for row in sorted(rows, key=lambda row: hosts[row.name]):  # the others keep their order, and come first
        host = hosts[row.name]
        if host and host != shown:
            table.add_row(Text(host, style="bold"), *[""] * 10)
        shown = host
        name = _in_zone(f"  {row.name}" if host else row.name, row.zone)
        if row.silent:
            table.add_row(name, Text("silent", style=_BAD), is_bad=True)
            continue
        table.add_row(
            name,
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
            is_bad=not row.ready,
        )
    return table


def _host_of(row: InstanceRow, rows: Iterable[InstanceRow]) -> str:
    """Returns the host of a worker; that of a silent one follows from its name."""
    hosts = {other.host for other in rows if other.host}
    return row.host or next((host for host in hosts if row.silent and _is_worker(row.name, host)), "")


def _in_zone(name: str, zone: str) -> str:
    return f"{name} (zone {zone})" if zone else name


def _is_worker(name: str, host: str) -> bool:
    return name.startswith(f"{host}-") and name.removeprefix(f"{host}-").isdecimal()


def _servers(rows: Iterable[ServerRow]) -> Sheet:
    table = Sheet(
        "tier, server",
        "state",
        "asked/s",
        "p50",
        "p99",
        "hits",
        "errors/s",
        "bytes",
        "evictions/s",
        spare=("evictions/s", "p50", "bytes", "hits", "p99"),
    )
    for row in rows:
        table.add_row(
            Text(row.name.upper(), style="bold")
            if row.kind == "tier"
            else f"  {_in_zone(_at(row.name, row.master), row.zone)}",
            _state_of(row),
            rate(row.asked),
            seconds(row.p50),
            seconds(row.p99),
            share(row.hit_ratio),
            rate(row.errors),
            used(row.bytes, row.limit),
            rate(row.evictions),
            is_bad=bool(row.open_at or row.failing_at or row.twin_at),
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


def _feeds(rows: Iterable[FeedRow]) -> Sheet:
    table = Sheet("feed of", "behind at most", "at", "state")
    for row in rows:
        odd = [f"{name}: {state}" for name, state in row.states.items() if state != "read"]
        table.add_row(
            _at(row.region, row.master),
            seconds(row.bound),
            row.worst_at,
            Text(", ".join(odd), style=_BAD) if odd else "read by all",
            is_bad=bool(odd),
        )
    return table


def _at(name: str, master: str) -> str:
    return f"{name} at {master}" if master else name


def _lags(picture: Picture) -> Sheet:
    table = Sheet("changes", "p50", "p99", "open", "parked", "dead letters/s")
    queue = (count(picture.queue.backlog), count(picture.queue.parked), rate(picture.queue.buried))
    for number, row in enumerate(picture.lags):
        table.add_row(
            f"until {row.stage}", seconds(row.p50), seconds(row.p99), *(("", "", "") if number else queue)
        )
    return table


def _namespaces(rows: Sequence[NamespaceRow]) -> Sheet:
    table = Sheet(
        "namespace, worst first",
        "reads/s",
        "hits",
        "stale",
        "errors/s",
        "in L1",
        "max_lag",
        spare=("in L1", "max_lag", "stale"),
    )
    for row in rows[:SHOWN_NAMESPACES]:
        guaranteed = f" (guaranteed {size(row.l1_guaranteed)})" if row.l1_guaranteed else ""
        table.add_row(
            row.name,
            rate(row.reads),
            share(row.hit_ratio),
            share(row.stale),
            rate(row.errors),
            f"{size(row.l1_bytes)}{guaranteed}",
            seconds(row.max_lag),
        )
    return table


def _origins(rows: Iterable[OriginRow]) -> Sheet:
    table = Sheet(
        "origin of", "loads/s", "p50", "p99", "running", "waiting", "refused/s", spare=("p50", "waiting")
    )
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
            is_bad=bool(row.refused or full),
        )
    return table


def _hot(picture: Picture) -> Sheet:
    refused = (
        f" (token refused at {', '.join(picture.tokens_refused_at)})" if picture.tokens_refused_at else ""
    )
    table = Sheet(f"hot key{refused}", "of", "share", "reads/s")
    for row in picture.hot:
        table.add_row(Text(row.name), row.namespace, share(row.share), rate(row.reads))
    return table


def _changes(rows: Iterable[ChangeRow]) -> Sheet:
    table = Sheet("last changes", "region", "of", "what", "who", "through", spare=("through", "region"))
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
