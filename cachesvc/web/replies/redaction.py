"""The topology as anyone may see it, without credentials and values of headers."""

import re
from collections.abc import Collection
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec import Struct

from cachesvc.config.topology import Topology
from cachesvc.model.units import Duration, Size

HIDDEN = "***"

Shown: TypeAlias = "str | int | float | bool | dict[str, Shown] | None"

_DURATION_UNITS = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
)
_SIZE_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE).match
_HARMLESS = frozenset(["db"])


def shown_topology(topology: Topology) -> dict[str, Shown]:
    """Returns a document of plain values, with durations and sizes as people write them.

    `callers` are left out.
    """
    return {field: shown for field, shown in _shown_fields(topology).items() if field != "callers"}


def seen_topology(topology: Topology, namespaces: Collection[str]) -> dict[str, Shown]:
    """Returns what a client needs: version, instances, and the owners of the given namespaces."""
    return {
        "version": topology.version,
        "regions": {
            name: {
                "instances": _shown(region.instances),
                "operations": _shown(region.operations),
                **({"zones": _shown(region.zones)} if region.zones else {}),
            }
            for name, region in topology.regions.items()
        },
        "namespaces": {name: {"owner": topology.namespaces[name].owner} for name in namespaces},
    }


def _shown(value: object, name: str = "") -> Shown:
    if isinstance(value, Struct):
        return _shown_fields(value)
    if isinstance(value, dict):
        return {str(key): HIDDEN if name == "headers" else _shown(item) for key, item in value.items()}
    if isinstance(value, Duration):
        return _written(value, _DURATION_UNITS, "s")
    if isinstance(value, Size):
        return _written(value, _SIZE_UNITS, "B")
    if isinstance(value, str):
        return without_credentials(value) if _URL(value) else str(value)
    return value if isinstance(value, int | float) or value is None else str(value)


def _shown_fields(value: Struct) -> dict[str, Shown]:
    return {field: _shown(getattr(value, field), field) for field in value.__struct_fields__}


def _written(amount: int, units: tuple[tuple[str, int], ...], zero: str) -> str:
    """Returns the amount in the largest unit that leaves no remainder: `5m`, `1500ms`."""
    for unit, size in units:
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return f"0{zero}"


def without_credentials(url: str) -> str:
    """Returns the URL with user, password and the values of its query hidden.

    The values of a few query parameters are known to be harmless, and stay.
    """
    scheme, _, rest = url.partition("://")
    servers = re.split("[/?#]", rest, maxsplit=1)[0]  # several of sentinels, which urlsplit may refuse
    parts = urlsplit(f"{scheme}://{rest[len(servers) :]}")
    userinfo, at, host = servers.rpartition("@")
    netloc = f"{HIDDEN}@{host}" if at and userinfo else host
    query = [
        (key, value if key in _HARMLESS or value == "{key}" else HIDDEN)
        for key, value in parse_qsl(parts.query, True)
    ]
    shown: str = urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="{}*"), ""))
    return shown
