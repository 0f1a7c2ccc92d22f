"""The rows of the tiers, and of their servers and cells."""

from collections.abc import Iterable, Sequence

from cachesvc.commands.top.between import Between
from cachesvc.commands.top.interval import Buckets, quantile, share_of, together
from cachesvc.commands.top.rows import ServerRow
from cachesvc.commands.top.scrape import master_of


def server_rows(seen: Between) -> Sequence[ServerRow]:
    """A row for each tier, followed by its servers. Empty if no instance answered."""
    if not seen.scrapes:
        return []
    servers, cells = seen.names("server_keys_total", "server"), seen.names("cell_exchanges_total", "cell")
    return [
        _l1(seen),
        _tier("l2", seen, servers),
        *(_memcached(server, seen) for server in servers),
        _tier("l3", seen, cells),
        *(_cell(cell, seen) for cell in cells),
    ]


def _l1(seen: Between) -> ServerRow:
    asked, hit_ratio, errors = _looked_up("l1", seen)
    return ServerRow(
        "l1",
        "tier",
        asked=asked,
        hit_ratio=hit_ratio,
        errors=errors,
        bytes=seen.sum("l1_size_bytes"),
        limit=seen.sum("l1_budget_bytes"),
        evictions=seen.rate("l1_evictions_total"),
    )


def _tier(name: str, seen: Between, servers: Sequence[str]) -> ServerRow:
    asked, hit_ratio, errors = _looked_up(name, seen)
    latency = _latency(seen, servers)
    return ServerRow(
        name,
        "tier",
        asked=asked,
        hit_ratio=hit_ratio,
        errors=errors,
        p50=quantile(0.5, latency),
        p99=quantile(0.99, latency),
    )


def _memcached(server: str, seen: Between) -> ServerRow:
    keys, latency = seen.rates("server_keys_total", "outcome", server=server), _latency(seen, [server])
    return ServerRow(
        server,
        "memcached",
        asked=sum(keys.values()) if keys else None,
        hit_ratio=share_of(keys.get("hit"), keys.get("miss")),
        errors=keys.get("error"),
        p50=quantile(0.5, latency),
        p99=quantile(0.99, latency),
        bytes=seen.most("server_size_bytes", server=server),
        limit=seen.most("server_limit_bytes", server=server),
        evictions=seen.most_rate("server_evictions_total", server=server),
        open_at=sorted(
            name
            for kind in ("memcached", "gutter")
            for name in _above_0(seen.values("breaker_open", kind=kind, server=server))
        ),
        failing_at=_above_0(seen.rates_at("server_keys_total", server=server, outcome="error")),
        zone=next(iter(seen.names("server_zone", "zone", server=server)), ""),
    )


def _cell(cell: str, seen: Between) -> ServerRow:
    latency = _latency(seen, [cell])
    return ServerRow(
        cell,
        "cell",
        asked=seen.rate("cell_exchanges_total", cell=cell),
        errors=seen.rate("cell_failures_total", cell=cell),
        p50=quantile(0.5, latency),
        p99=quantile(0.99, latency),
        bytes=seen.most("cell_memory_bytes", cell=cell),
        limit=seen.most("cell_memory_limit_bytes", cell=cell) or None,
        open_at=_above_0(seen.values("breaker_open", kind="cell", server=cell)),
        failing_at=sorted(
            {*_above_0(seen.rates_at("cell_failures_total", cell=cell)), *_unknown_at(cell, seen)}
        ),
        clock_offset=max(seen.values("cell_clock_offset_seconds", cell=cell).values(), key=abs, default=None),
        servers=_groups(seen.values("cell_server", cell=cell)),
        master=master_of(f"cell {cell}", seen.scrapes.values()),
        twin_at=_above_0(seen.values("cell_twin", cell=cell)),
    )


def _groups(servers: dict[str, float]) -> Sequence[Sequence[str]]:
    """The instances by the server that they reach; empty if it is the same one for all."""
    groups: dict[float, list[str]] = {}
    for instance, server in servers.items():
        if server:
            groups.setdefault(server, []).append(instance)
    return list(groups.values()) if len(groups) > 1 else ()


def _unknown_at(cell: str, seen: Between) -> Sequence[str]:
    """The instances whose background poll of the cell's memory got no answer.

    So a cell that fails is noticed even while no request uses it.
    """
    known = seen.values("cell_memory_bytes", cell=cell)
    return [name for name in _above_0(seen.values("polls_failed_total")) if name not in known]


def _looked_up(tier: str, seen: Between) -> tuple[float | None, float | None, float | None]:
    """Look-ups per second, the share of hits, and errors per second."""
    found = seen.rates("lookups_total", "outcome", tier=tier)
    asked, hits = sum(found.values()), found.get("hit", 0.0)
    return (asked if found else None), share_of(hits, asked - hits), found.get("error")


def _latency(seen: Between, servers: Iterable[str]) -> Buckets:
    return together(seen.buckets("exchange_duration_seconds", server=server) for server in servers)


def _above_0(found: dict[str, float]) -> Sequence[str]:
    return [name for name, value in found.items() if value > 0]
