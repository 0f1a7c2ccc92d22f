"""The zone that a client is in, as its application or its environment says it."""

import os
import re

VARIABLE = "CACHESVC_ZONE"
_ZONE = re.compile(r"[a-z][a-z0-9-]{0,63}")


def zone_of(given: str | None) -> str:
    """Returns the zone; empty if neither argument nor environment says one.

    Raises `ValueError` for a text that is no zone's name.
    """
    zone = os.environ.get(VARIABLE, "") if given is None else given
    if zone and not (isinstance(zone, str) and _ZONE.fullmatch(zone)):
        said_by = "zone" if given is not None else VARIABLE
        raise ValueError(f"{said_by}: {zone!r} is no zone name, such as eu-central-1a")
    return zone
