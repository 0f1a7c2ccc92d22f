"""The rules of the shared document that a field's type cannot express.

They are about names, references and combinations of fields.
"""

import math
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from cachesvc.config.document import require
from cachesvc.config.row_templates import check_sources
from cachesvc.config.topology import STAND_IN, Former, Namespace, Origin, Region, Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError

NAMESPACE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
RESERVED = ("fences", "invalidations", "topology")
"""The paths at `/v1/…` that are no namespaces."""
REGION_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
KEPT_AT_MOST_US = 30 * 86_400 * 1_000_000
"""The longest time that an entry is kept. memcached reads a longer expiry as a date in
1970, and drops the entry."""
SHORTEST_LEASE_US = 100_000
"""The shortest lease; a shorter one could end while it is renewed at the home cell."""


def check_topology(topology: Topology) -> None:
    """Raises `ConfigError` for the first rule that does not hold."""
    require(topology.version >= 1, "$.version", "must be 1 or more, and grow with every change")
    require(bool(topology.regions), "$.regions", "is empty: there must be one region at least")
    for name, region in topology.regions.items():
        _check_name(REGION_NAME, name, "$.regions", "region")
        _check_region(region, f"$.regions.{name}")
    _check_cells(topology)
    _check_pins(topology.pins, topology.cells, "$.pins")
    if topology.former is not None:
        _check_former(topology.former, topology)
    for name, namespace in topology.namespaces.items():
        _check_name(NAMESPACE_NAME, name, "$.namespaces", "namespace")
        require(
            name not in RESERVED, f"$.namespaces.{name}", "is a path of the API itself: choose another name"
        )
        _check_namespace(namespace, f"$.namespaces.{name}")


def _check_region(region: Region, path: str) -> None:
    _check_redis_url(region.queue, f"{path}.queue")
    for name, server in region.pool.items():
        here = f"{path}.pool.{name}"
        _check_name(SERVER_NAME, name, f"{path}.pool", "memcached server")
        require(
            _is_memcached_address(server.address),
            f"{here}.address",
            f"{server.address!r} is no host:port or unix:/path",
        )
        _check_weight(server.weight, f"{here}.weight")
    _refuse_twins(
        (f"{path}.pool.{name}.address", s.address) for name, s in region.pool.items() if s.address != STAND_IN
    )
    for name, url in region.instances.items():
        _check_name(SERVER_NAME, name, f"{path}.instances", "instance")
        require(_is_http_url(url), f"{path}.instances.{name}", f"{url!r} is no base URL: http(s)://host:port")
    _refuse_twins((f"{path}.instances.{name}", url) for name, url in region.instances.items())


def _check_cells(topology: Topology) -> None:
    for name, cell in topology.cells.items():
        here = f"$.cells.{name}"
        _check_name(REGION_NAME, name, "$.cells", "cell")
        if cell.region not in topology.regions:
            raise ConfigError(
                f"{here}.region", f"no region {cell.region!r}{did_you_mean(cell.region, topology.regions)}"
            )
        _check_redis_url(cell.url, f"{here}.url")
        _check_weight(cell.weight, f"{here}.weight")
    active = any(cell.active for cell in topology.cells.values())
    require(active, "$.cells", "there is no active cell: partitions would have no home")
    queues = ((f"$.regions.{name}.queue", region.queue) for name, region in topology.regions.items())
    _refuse_twins([*queues, *((f"$.cells.{name}.url", cell.url) for name, cell in topology.cells.items())])


def _check_pins(pins: Mapping[str, str], cells: Iterable[str], path: str) -> None:
    for partition, cell in pins.items():
        here = f"{path}.{partition}"
        require(bool(partition), here, "a partition has at least one character")
        tagged = partition.startswith("{") and partition.endswith("}")
        require(not tagged, here, f"name the partition without its braces: {partition[1:-1]}")
        if cell not in cells:
            raise ConfigError(here, f"no cell {cell!r}{did_you_mean(cell, cells)}")


def _check_former(former: Former, topology: Topology) -> None:
    """Raises `ConfigError` for a former placement that is not known or is the present one.

    A former cell must still be there: it may hold copies, and invalidations have to reach them.
    """
    path = "$.former"
    require(
        bool(former.cells), f"{path}.cells", "is empty: name the cells that were active, each with its weight"
    )
    for name, weight in former.cells.items():
        here = f"{path}.cells.{name}"
        hint = did_you_mean(name, topology.cells)
        require(
            name in topology.cells,
            here,
            f"no cell {name!r}{hint}; keep it under cells, with active: false, while it is named here",
        )
        _check_weight(weight, here)
    _check_pins(former.pins, topology.cells, f"{path}.pins")
    active = {name: cell.weight for name, cell in topology.cells.items() if cell.active}
    moved = (former.cells, former.pins) != (active, topology.pins)
    require(moved, path, "is where partitions are now: say where they were, or leave it out")


def _check_namespace(namespace: Namespace, path: str) -> None:
    require(bool(namespace.owner.strip()), f"{path}.owner", "is empty: name the team to call")
    require(namespace.ttl > 0, f"{path}.ttl", "must be longer than 0")
    kept_us = namespace.ttl + max(namespace.stale_while_revalidate, namespace.stale_if_error)
    require(kept_us <= KEPT_AT_MOST_US, f"{path}.ttl", "with its stale windows it is above 30d")
    require(namespace.negative_ttl <= KEPT_AT_MOST_US, f"{path}.negative_ttl", "is above 30d")
    require(
        0 <= namespace.jitter < 1, f"{path}.jitter", f"{namespace.jitter} is not a share: 0 or more, below 1"
    )
    beta = namespace.early_refresh
    require(beta >= 0 and math.isfinite(beta), f"{path}.early_refresh", f"{beta} is not 0 or more")
    require(namespace.max_value > 0, f"{path}.max_value", "must be larger than 0")
    require(
        namespace.max_lag > 0, f"{path}.max_lag", "must be longer than 0, or no copy would ever be answered"
    )
    require(
        namespace.lease >= SHORTEST_LEASE_US,
        f"{path}.lease",
        "below 100ms it would end before it can be renewed",
    )
    require(0 <= namespace.tags_max <= 128, f"{path}.tags_max", f"{namespace.tags_max} is not 0 to 128")
    if namespace.origin is not None:
        _check_origin(namespace.origin, namespace, f"{path}.origin")
    check_sources(namespace.sources, f"{path}.sources")


def _check_origin(origin: Origin, namespace: Namespace, path: str) -> None:
    require(origin.url.count("{key}") == 1, f"{path}.url", f"{origin.url!r} must hold {{key}} once")
    require(_is_http_url(origin.url), f"{path}.url", f"{origin.url!r} is no http(s)://host/path URL")
    require(
        "{key}" not in urlsplit(origin.url).netloc,
        f"{path}.url",
        "a key must not choose the host: put {key} in the path",
    )
    require(
        1 <= origin.concurrency <= 100_000, f"{path}.concurrency", f"{origin.concurrency} is not 1 to 100000"
    )
    require(origin.soft_deadline > 0, f"{path}.soft_deadline", "must be longer than 0")
    require(
        origin.hard_deadline >= origin.soft_deadline, f"{path}.hard_deadline", "is below the soft_deadline"
    )
    require(origin.max_body > 0, f"{path}.max_body", "must be larger than 0")
    require(
        namespace.max_value <= origin.max_body,
        f"{path}.max_body",
        "is below the namespace's max_value: a value could be stored that its origin may not answer",
    )
    require(
        namespace.lease >= origin.soft_deadline,
        f"{path}.soft_deadline",
        "is above the namespace's lease: every slow load would outlive its lease before a reader gives up "
        "waiting",
    )
    for name, value in origin.headers.items():
        require(bool(HEADER_NAME.fullmatch(name)), f"{path}.headers.{name}", "is no header name")
        # The value may be a secret, so the message does not repeat it.
        require(value.isprintable(), f"{path}.headers.{name}", "its value holds a control character")


def _check_name(pattern: re.Pattern[str], name: str, section: str, what: str) -> None:
    require(
        bool(pattern.fullmatch(name)),
        f"{section}.{name}",
        f"{name!r} is no {what} name: it must match {pattern.pattern}",
    )


def _check_weight(weight: float, path: str) -> None:
    require(0 < weight <= 1_000_000, path, f"{weight} is no weight: above 0, at most 1000000")


def _check_redis_url(url: str, path: str) -> None:
    scheme = url.partition(":")[0]
    sound = (scheme in ("redis", "rediss") and _has_host(url)) or url.startswith("unix:///")
    # The URL may hold a password, so the message repeats its scheme only.
    shown = scheme if re.fullmatch(r"[a-z+]{1,12}", scheme) else "no scheme"
    require(sound, path, f"({shown}) must be redis://host:port/db or unix:///path?db=0")


def _is_http_url(url: str) -> bool:
    return url.startswith(("http://", "https://")) and _has_host(url)


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # a port that is no number, or above 65535; a broken IPv6 address
        return False


def _is_memcached_address(address: str) -> bool:
    if address == STAND_IN or address.startswith("unix:/"):
        return True
    return "://" not in address and ":" in address and _has_host(f"tcp://{address}")


def _refuse_twins(places: Iterable[tuple[str, str]]) -> None:
    """Raises `ConfigError` for a server that has two names.

    One name would undo the work of the other (fences, positions on the ring).
    """
    first: dict[str, str] = {}
    for path, address in places:
        require(address not in first, path, f"is the same as {first.get(address)}")
        first[address] = path
