"""The line `Server-Timing` of answers that took long: what they cost, and why.

    Server-Timing: cache;dur=201.3, home;desc="us-1";dur=199.8

`cache` is the time that the request took in this instance, `home` the round trip to the home cell
of one of its keys as it is estimated now, the farthest ones first: all in ms (W3C Server Timing).
"""

from collections.abc import Mapping

FROM_SECONDS = 0.01
"""Answers that took less say nothing: no cell that they needed was far."""
MOST_HOMES = 4
"""Home cells that are named at most."""


def server_timing(seconds: float, homes: Mapping[str, float]) -> bytes:
    """Returns the header line; `homes` has the round trips to home cells in seconds, by name."""
    farthest = sorted(homes.items(), key=lambda home: -home[1])[:MOST_HOMES]
    parts = [f"cache;dur={seconds * 1000:.1f}"]
    parts += [f'home;desc="{name}";dur={way * 1000:.1f}' for name, way in farthest if way]
    return f"Server-Timing: {', '.join(parts)}\r\n".encode()
