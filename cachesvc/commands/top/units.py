"""Formats numbers in a few characters; `–` stands for a number that is not known."""

UNKNOWN = "–"
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def seconds(value: float | None) -> str:
    """`480 µs`, `3.2 ms`, `1.5 s`, `12 min`, `3.1 h`."""
    if value is None:
        return UNKNOWN
    if value < 0.001:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def rate(value: float | None) -> str:
    """`0`, `0.3`, `12`, `4.1 k`."""
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return f"{value / 1000:.1f} k"
    return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def share(value: float | None) -> str:
    """`97.3 %`."""
    return UNKNOWN if value is None else f"{100 * value:.1f} %"


def size(value: float | None) -> str:
    """`12 MiB`, `980 B`."""
    if value is None:
        return UNKNOWN
    power = 0
    while value >= 1024 and power < len(_SIZES) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.3g} {_SIZES[power]}" if value < 1000 else f"{value:.0f} {_SIZES[power]}"


def count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def used(value: float | None, limit: float | None) -> str:
    """`12 MiB of 64 MiB`."""
    return size(value) if limit is None else f"{size(value)} of {size(limit)}"
