"""Durations: read as people write them (`"5m"`, `2.5`), told as the protocol takes them."""

import math
import re
from datetime import timedelta
from numbers import Real
from typing import TypeAlias

Duration: TypeAlias = str | float | timedelta
"""Seconds as a number, a `timedelta`, or a text: `250ms`, `5m`, `1.5h`."""

_TEXT = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def seconds_of(value: Duration, name: str) -> float:
    """Returns `value` in seconds, 0 or more; raises `ValueError` that names the argument."""
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match is None:
            raise ValueError(
                f"{name}: {value!r} is not a duration:"
                " write seconds, or a number and one of us, ms, s, m, h, d"
            )
        return float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: {value!r} is not a number of seconds from 0 up")
    return float(value)


def positive_seconds_of(value: Duration, name: str) -> float:
    """Returns `value` in seconds, more than 0; raises `ValueError` that names the argument.

    It is for what must take some time: a deadline of 0 could never be met.
    """
    seconds = seconds_of(value, name)
    if seconds == 0:
        raise ValueError(f"{name}: must be longer than 0")
    return seconds


def text_of(value: Duration, name: str) -> str:
    """Returns the duration for a document of the service: `5m` as it stands, numbers in ms."""
    seconds = positive_seconds_of(value, name)
    return value if isinstance(value, str) else header_of(seconds)


def header_of(seconds: float) -> str:
    """Returns the duration as `Cachesvc-Timeout` takes it: whole milliseconds, at least one."""
    return f"{max(1, int(seconds * 1000))}ms"
