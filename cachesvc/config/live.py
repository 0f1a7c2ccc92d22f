"""The parts of the topology document that take effect while an instance runs.

callers, rates, numbers of origin_budget       at once
a namespace that comes or goes                 at once
TTLs, windows, limits of a namespace           at once, for what is stored and read from then on
how values are loaded (`origin`)               at once, for loads that begin from then on
the rows that concern a namespace (`sources`)  at once, for row changes that are taken from then on
memcached servers, their gutter and their zones  between two turns, when the new ones are greeted
everything else                                at the next start; `waiting` names it
"""

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.config.topology import L1Room, Namespace, Origin, Region, Topology

Path: TypeAlias = tuple[str, ...]
"""The way to a field: `("namespaces", "pages", "ttl")`."""

LIVE_FIELDS = (
    "owner",
    "ttl",
    "stale_while_revalidate",
    "stale_if_error",
    "negative_ttl",
    "jitter",
    "early_refresh",
    "max_value",
    "max_lag",
    "feed_loss",
    "lease",
    "lease_wait",
    "tags_max",
    "rates",
    "sources",
)
"""The fields of a namespace that change live as a whole."""
LIVE_FIELDS_OF_ORIGINS = ("url", "soft_deadline", "hard_deadline", "max_body", "lag", "headers")

LIVE_FIELDS_OF_REGIONS = ("pool", "gutter", "rings", "zones")


def changed(before: object, after: object, at: Path = ()) -> Iterator[Path]:
    """Yields the ways to all fields in which two documents differ.

    A field of a mapping that only one of them has is one; so is one that is left out in one.
    """
    if isinstance(before, Struct) and type(before) is type(after):
        for field in before.__struct_fields__:
            yield from changed(getattr(before, field), getattr(after, field), (*at, field))
    elif isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            if name in before and name in after:
                yield from changed(before[name], after[name], (*at, str(name)))
            else:
                yield (*at, str(name))
    elif before != after:
        yield at


def is_live(path: Path) -> bool:
    """True if a change of this field takes effect while instances run."""
    match path:
        case ("callers", *_):
            return True
        case ("regions", _, field, *_) if field in LIVE_FIELDS_OF_REGIONS:
            return True
        case ("namespaces", _) | ("namespaces", _, "origin"):
            return True
        case ("namespaces", _, field, *_) if field in LIVE_FIELDS:
            return True
        case ("namespaces", _, "origin", field, *_):
            return field in LIVE_FIELDS_OF_ORIGINS
        case ("namespaces", _, "origin_budget", _, *_):
            return True
        case _:
            return False


def taken(running: Topology, found: Topology) -> Topology:
    """Returns the running topology, with all that takes effect live from the other one."""
    namespaces = {
        name: _taken(running.namespaces[name], one) if name in running.namespaces else _come(one)
        for name, one in found.namespaces.items()
    }
    regions = {
        name: _taken_region(one, found.regions[name]) if name in found.regions else one
        for name, one in running.regions.items()
    }
    return replace(running, callers=found.callers, namespaces=namespaces, regions=regions)


def waiting(running: Topology, found: Topology) -> list[Path]:
    """Returns the ways to what differs and takes effect at the next start only.

    `running` is the result of `taken`. `version` alone is not among them: it says nothing by itself.
    """
    return [path for path in changed(running, found) if path != ("version",)]


def _taken_region(running: Region, found: Region) -> Region:
    return replace(running, **{field: getattr(found, field) for field in LIVE_FIELDS_OF_REGIONS})


def _come(found: Namespace) -> Namespace:
    """Returns a namespace that comes. It has no room of its own in L1 before the next start."""
    return replace(found, l1=L1Room())


def _taken(running: Namespace, found: Namespace) -> Namespace:
    fields = {field: getattr(found, field) for field in LIVE_FIELDS}
    fields["origin"] = found.origin
    if running.origin is not None and found.origin is not None:
        fields["origin"] = _taken_origin(running.origin, found.origin)
    if running.origin_budget is not None and found.origin_budget is not None:
        fields["origin_budget"] = found.origin_budget
    return replace(running, **fields)


def _taken_origin(running: Origin, found: Origin) -> Origin:
    return replace(running, **{field: getattr(found, field) for field in LIVE_FIELDS_OF_ORIGINS})
