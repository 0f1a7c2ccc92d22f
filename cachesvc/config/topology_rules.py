"""The rules of the shared document that a field's type cannot express.

They are about names, references and combinations of fields.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from cachesvc.config.addresses import (
    REDIS_URLS,
    base_url_fault,
    memcached_fault,
    origin_fault,
    place_of,
    redis_fault,
    redis_query_fault,
    without_userinfo,
)
from cachesvc.config.callers import check_callers
from cachesvc.config.limits import check_origin_budget, check_rates
from cachesvc.config.mistakes import Mistakes, collected
from cachesvc.config.row_templates import check_sources
from cachesvc.config.topology import STAND_IN, Former, Namespace, Origin, Region, Topology
from cachesvc.model.did_you_mean import did_you_mean

NAMESPACE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RESERVED = ("fences", "invalidations", "topology")
"""The paths at `/v1/…` that are no namespaces."""
REGION_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t -~]*")
FRAMING = ("connection", "content-length", "transfer-encoding", "upgrade", "keep-alive")
"""The headers that say where a message ends, and what becomes of its connection."""
KEPT_AT_MOST_US = 30 * 86_400 * 1_000_000
"""The longest time that an entry is kept. memcached reads a longer expiry as a date in
1970, and drops the entry."""
SHORTEST_LEASE_US = 100_000
"""The shortest lease; a shorter one could end while it is renewed at the home cell."""


def check_topology(topology: Topology, found: Mistakes | None = None) -> None:
    """Raises `ConfigError` with every rule that does not hold.

    With `found`, they are noted there.
    """
    with collected(found) as found:
        found.require(topology.version >= 1, "$.version", "must be 1 or more, and grow with every change")
        found.require(bool(topology.regions), "$.regions", "is empty: there must be one region at least")
        for name, region in topology.regions.items():
            _check_name(REGION_NAME, name, "$.regions", "region", found)
            _check_region(region, f"$.regions.{name}", found)
        _check_cells(topology, found)
        _check_pins(topology.pins, topology.cells, "$.pins", found)
        prefixes = {name: region.partitions for name, region in topology.regions.items()}
        active = [name for name, cell in topology.cells.items() if cell.active]
        _check_prefixes(prefixes, active, topology, "$.regions.{}.partitions", found)
        if topology.former is not None:
            _check_former(topology.former, topology, found)
        check_namespaces(topology.namespaces, found)
        if topology.callers is not None:
            check_callers(topology.callers, "$.callers", found)


def check_namespaces(namespaces: Mapping[str, Namespace], found: Mistakes) -> None:
    """Notes the rules within `namespaces` that do not hold."""
    for name, namespace in namespaces.items():
        _check_name(NAMESPACE_NAME, name, "$.namespaces", "namespace", found)
        found.require(
            name not in RESERVED,
            f"$.namespaces.{name}",
            "is a path of the API itself: choose another name",
        )
        _check_namespace(namespace, f"$.namespaces.{name}", found)


def _check_region(region: Region, path: str, found: Mistakes) -> None:
    _check_redis_url(region.queue, f"{path}.queue", found)
    for field, servers in (("pool", region.pool), ("gutter", region.gutter)):
        for name, server in servers.items():
            here = f"{path}.{field}.{name}"
            _check_name(SERVER_NAME, name, f"{path}.{field}", "memcached server", found)
            is_stand_in = field == "pool" and server.address == STAND_IN
            fault = "" if is_stand_in else memcached_fault(server.address)
            shown = f"{server.address!r} is no host:port, tls:host:port or unix:/path"
            found.require(not fault, f"{here}.address", f"{shown}: {fault}")
            _check_weight(server.weight, f"{here}.weight", found)
    for name in region.gutter.keys() & region.pool.keys():
        found.note(
            f"{path}.gutter.{name}", "is a name of the pool too: give the server in the gutter another"
        )
    found.require(
        bool(region.pool) or not region.gutter,
        f"{path}.gutter",
        "takes the keys of the servers in pool, and there are none: name them there",
        f"{path}.pool",
    )
    addresses = [
        (f"{path}.{field}.{name}.address", server.address)
        for field, servers in (("pool", region.pool), ("gutter", region.gutter))
        for name, server in servers.items()
        if server.address != STAND_IN
    ]
    _refuse_twins(addresses, found)
    for field, urls in (("instances", region.instances), ("operations", region.operations)):
        for name, url in urls.items():
            _check_name(SERVER_NAME, name, f"{path}.{field}", "instance", found)
            fault = base_url_fault(url)
            shown = f"{without_userinfo(url)!r} is no base URL: http(s)://host:port"
            found.require(not fault, f"{path}.{field}.{name}", f"{shown} ({fault})")
        _refuse_twins(((f"{path}.{field}.{name}", url) for name, url in urls.items()), found)
    for name in region.operations:
        found.require(
            name in region.instances,
            f"{path}.operations.{name}",
            f"no instance {name!r} in this region{did_you_mean(name, region.instances)}",
            f"{path}.instances",
        )
    _check_relays(region, path, found)
    _check_zones(region, path, found)


def _check_relays(region: Region, path: str, found: Mistakes) -> None:
    relays = region.relays
    for name, source in relays.items():
        here = f"{path}.relays.{name}"
        found.require(
            name in region.instances,
            here,
            f"no instance {name!r} in this region{did_you_mean(name, region.instances)}",
            f"{path}.instances",
        )
        found.require(
            not source or source in relays,
            here,
            f"no relay {source!r} in this region{did_you_mean(source, relays)}: name one,"
            ' or "" to read from the queues',
        )
        passed = {name}
        while source in relays and source not in passed:
            passed.add(source)
            source = relays[source]
        found.require(
            source != name,
            here,
            "reads from itself, over the relays that it names: let one of them read from the queues"
            ' (write "")',
        )


def _check_zones(region: Region, path: str, found: Mistakes) -> None:
    for field, servers in (("pool", region.pool), ("gutter", region.gutter)):
        for name, server in servers.items():
            here = f"{path}.{field}.{name}.zone"
            if server.zone:
                _check_zone(server.zone, here, found)
            found.require(
                bool(server.zone) or field == "gutter" or region.rings == "region",
                here,
                "is missing: with `rings: zone` a server is on the ring of its zone, such as `zone: a`",
                f"{path}.rings",
            )
    found.require(
        bool(region.pool) or region.rings == "region",
        f"{path}.rings",
        "is zone, and there is no memcached server: name them in pool, each with its zone",
        f"{path}.pool",
    )
    for name, zone in region.zones.items():
        here = f"{path}.zones.{name}"
        found.require(
            name in region.instances,
            here,
            f"no instance {name!r} in this region{did_you_mean(name, region.instances)}",
            f"{path}.instances",
        )
        _check_zone(zone, here, found)


def _check_zone(zone: str, path: str, found: Mistakes) -> None:
    found.require(
        bool(REGION_NAME.fullmatch(zone)),
        path,
        f"{zone!r} is no zone name: it must match {REGION_NAME.pattern}",
    )


def _check_cells(topology: Topology, found: Mistakes) -> None:
    for name, cell in topology.cells.items():
        here = f"$.cells.{name}"
        _check_name(REGION_NAME, name, "$.cells", "cell", found)
        found.require(
            cell.region in topology.regions,
            f"{here}.region",
            f"no region {cell.region!r}{did_you_mean(cell.region, topology.regions)}",
            "$.regions",
        )
        _check_redis_url(cell.url, f"{here}.url", found)
        _check_weight(cell.weight, f"{here}.weight", found)
    active = any(cell.active for cell in topology.cells.values())
    found.require(active, "$.cells", "there is no active cell: partitions would have no home")
    queues = ((f"$.regions.{name}.queue", region.queue) for name, region in topology.regions.items())
    cells = ((f"$.cells.{name}.url", cell.url) for name, cell in topology.cells.items())
    _refuse_twins([*queues, *cells], found)


def _check_pins(pins: Mapping[str, str], cells: Collection[str], path: str, found: Mistakes) -> None:
    for partition, cell in pins.items():
        here = f"{path}.{partition}"
        found.require(bool(partition), here, "a partition has at least one character")
        tagged = partition.startswith("{") and partition.endswith("}")
        found.require(not tagged, here, f"name the partition without its braces: {partition[1:-1]}")
        found.require(cell in cells, here, f"no cell {cell!r}{did_you_mean(cell, cells)}", "$.cells")


def _check_prefixes(
    prefixes: Mapping[str, Sequence[str]],
    active: Collection[str],
    topology: Topology,
    path: str,
    found: Mistakes,
) -> None:
    """Notes prefixes of partitions that place nothing, or more than one region has.

    `path` has a place for the name of the region.
    """
    regions = {topology.cells[name].region for name in active if name in topology.cells}
    taken: dict[str, str] = {}
    for region, those in prefixes.items():
        here = path.format(region)
        if those:
            why = "its partitions would have no home: the region has no active cell"
            found.require(region in regions, here, why, "$.cells")
        for prefix in those:
            found.require(
                bool(prefix), here, "an empty prefix would be that of every partition: leave it out"
            )
            found.require(
                "{" not in prefix, here, f"name the partition's beginning without braces: {prefix!r}"
            )
            other = taken.setdefault(prefix, region)
            found.require(
                other == region, here, f"{prefix!r} is a prefix of region {other}, too: which one is it?"
            )


def _check_former(former: Former, topology: Topology, found: Mistakes) -> None:
    """Notes a former placement that is not known or is the present one.

    A former cell must still be there: it may hold copies, and invalidations have to reach them.
    """
    path = "$.former"
    found.require(
        bool(former.cells), f"{path}.cells", "is empty: name the cells that were active, each with its weight"
    )
    for name, weight in former.cells.items():
        here = f"{path}.cells.{name}"
        hint = did_you_mean(name, topology.cells)
        found.require(
            name in topology.cells,
            here,
            f"no cell {name!r}{hint}; keep it under cells, with active: false, while it is named here",
            "$.cells",
        )
        _check_weight(weight, here, found)
    _check_pins(former.pins, topology.cells, f"{path}.pins", found)
    found.require(
        former.since is None or former.since.tzinfo is not None,
        f"{path}.since",
        "has no time zone: write it as 2026-11-30T10:00:00Z",
    )
    for region in former.partitions:
        hint = did_you_mean(region, topology.regions)
        here = f"{path}.partitions.{region}"
        found.require(region in topology.regions, here, f"no region {region!r}{hint}", "$.regions")
    known = {name: those for name, those in former.partitions.items() if name in topology.regions}
    _check_prefixes(known, former.cells, topology, f"{path}.partitions.{{}}", found)
    active = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
    prefixes = {name: region.partitions for name, region in topology.regions.items() if region.partitions}
    before = {name: those for name, those in former.partitions.items() if those}
    moved = (former.cells, former.pins, before) != (active, topology.pins, prefixes)
    found.require(moved, path, "is where partitions are now: say where they were, or leave it out")


def _check_namespace(namespace: Namespace, path: str, found: Mistakes) -> None:
    def require(holds: bool, field: str, why: str, *others: str) -> None:
        found.require(holds, f"{path}.{field}", why, *(f"{path}.{other}" for other in others))

    require(bool(namespace.owner.strip()), "owner", "is empty: name the team to call")
    require(namespace.ttl > 0, "ttl", "must be longer than 0")
    kept_us = namespace.ttl + max(namespace.stale_while_revalidate, namespace.stale_if_error)
    windows = ("stale_while_revalidate", "stale_if_error")
    require(kept_us <= KEPT_AT_MOST_US, "ttl", "with its stale windows it is above 30d", *windows)
    require(namespace.negative_ttl <= KEPT_AT_MOST_US, "negative_ttl", "is above 30d")
    require(0 <= namespace.jitter < 1, "jitter", f"{namespace.jitter} is not a share: 0 or more, below 1")
    beta = namespace.early_refresh
    require(beta >= 0 and math.isfinite(beta), "early_refresh", f"{beta} is not 0 or more")
    require(namespace.max_value > 0, "max_value", "must be larger than 0")
    require(namespace.max_lag > 0, "max_lag", "must be longer than 0, or no copy would ever be answered")
    require(
        namespace.lease >= SHORTEST_LEASE_US, "lease", "below 100ms it would end before it can be renewed"
    )
    require(0 <= namespace.tags_max <= 128, "tags_max", f"{namespace.tags_max} is not 0 to 128")
    if namespace.origin is not None:
        _check_origin(namespace.origin, namespace, path, found)
    if namespace.origin_budget is not None:
        check_origin_budget(namespace.origin_budget, f"{path}.origin_budget", found)
    if namespace.rates is not None:
        check_rates(namespace.rates, f"{path}.rates", found)
    check_sources(namespace.sources, f"{path}.sources", found)


def _check_origin(origin: Origin, namespace: Namespace, of: str, found: Mistakes) -> None:
    path = f"{of}.origin"
    if fault := origin_fault(origin.url):
        found.note(f"{path}.url", fault)
    found.require(
        1 <= origin.concurrency <= 100_000, f"{path}.concurrency", f"{origin.concurrency} is not 1 to 100000"
    )
    found.require(origin.soft_deadline > 0, f"{path}.soft_deadline", "must be longer than 0")
    found.require(
        origin.hard_deadline >= origin.soft_deadline,
        f"{path}.hard_deadline",
        "is below the soft_deadline",
        f"{path}.soft_deadline",
    )
    found.require(origin.max_body > 0, f"{path}.max_body", "must be larger than 0")
    found.require(
        namespace.max_value <= origin.max_body,
        f"{path}.max_body",
        "is below the namespace's max_value: a value could be stored that its origin may not answer",
        f"{of}.max_value",
    )
    found.require(
        namespace.lease >= origin.soft_deadline,
        f"{path}.soft_deadline",
        "is above the namespace's lease: every slow load would outlive its lease before a reader gives up "
        "waiting",
        f"{of}.lease",
    )
    for name, value in origin.headers.items():
        here = f"{path}.headers.{name}"
        found.require(bool(HEADER_NAME.fullmatch(name)), here, "is no header name")
        found.require(
            name.lower() not in FRAMING, here, "is a header that the connection itself decides: leave it out"
        )
        # The value may be a secret, so the message does not repeat it.
        found.require(
            bool(HEADER_VALUE.fullmatch(value)),
            here,
            "its value holds a control character, or one beyond ASCII",
        )
    authorized = "authorization" in map(str.lower, origin.headers)
    found.require(
        not (authorized and without_userinfo(origin.url) != origin.url),
        f"{path}.headers",
        "has an Authorization, and the url a user or password: give one of both",
    )


def _check_name(pattern: re.Pattern[str], name: str, section: str, what: str, found: Mistakes) -> None:
    found.require(
        bool(pattern.fullmatch(name)),
        f"{section}.{name}",
        f"{name!r} is no {what} name: it must match {pattern.pattern}",
    )


def _check_weight(weight: float, path: str, found: Mistakes) -> None:
    found.require(0 < weight <= 1_000_000, path, f"{weight} is no weight: above 0, at most 1000000")


def _check_redis_url(url: str, path: str, found: Mistakes) -> None:
    scheme = url.partition(":")[0]
    # The URL may hold a password, so the message repeats its scheme only.
    shown = scheme if re.fullmatch(r"[a-z+]{1,15}", scheme) else "no scheme"
    if fault := redis_fault(url) or redis_query_fault(url):
        found.note(path, f"({shown}) must be {REDIS_URLS}: {fault}")


def _refuse_twins(places: Iterable[tuple[str, str]], found: Mistakes) -> None:
    """Notes a server that has two names.

    One name would undo the work of the other (fences, positions on the ring).
    """
    first: dict[str, str] = {}
    for path, address in places:
        place = place_of(address)
        found.require(place not in first, path, f"is the same as {first.get(place)}")
        first.setdefault(place, path)
