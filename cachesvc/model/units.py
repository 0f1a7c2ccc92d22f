"""Durations, sizes and parts of a size, as people write them and as the code counts them.

A `Duration` is an `int` of microseconds, a `Size` one of bytes: a validated setting is used as it
stands. A `Part` is the text itself, because the size that a percentage is of may be another one in
every instance.
"""

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Duration(int):
    """Microseconds. Written as a number and a unit: `250ms`, `5m`, `1.5h`."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Raises `ValueError` if the text is no duration, `OverflowError` if it is too long."""
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a duration: write a number and one of us, ms, s, m, h, d, such as '5m'"
            )
        return cls(round(float(match[1]) * _MICROSECONDS[match[2]]))

    @property
    def seconds(self) -> float:
        return self / 1_000_000


class Size(int):
    """Bytes. Written as a number and a unit: `512B`, `64KiB`, `4MiB`."""

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Raises `ValueError` if the text is no size, `OverflowError` if it is too large."""
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a size: write a number and one of B, KiB, MiB, GiB, such as '4MiB'"
            )
        return cls(round(float(match[1]) * _BYTES[match[2]]))


class Part(str):
    """A part of a size. Written as a size, `64MiB`, or as a percentage of the whole, `40%`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Raises `ValueError` if the text is neither, `OverflowError` if it is too large."""
        percent = _PERCENT.fullmatch(text)
        if percent is None and _SIZE.fullmatch(text) is None:
            raise ValueError(
                f"{text!r} is neither a size nor a percentage: write '64MiB' or '40%', for instance"
            )
        if percent is not None and float(percent[1]) > 100:
            raise ValueError(f"{text!r} is more than the whole: 100% at most")
        if percent is None:
            Size.parse(text)
        return cls(text)

    def of(self, whole: int) -> int:
        """Returns the bytes that this part is of `whole` bytes; a size may be above them."""
        percent = _PERCENT.fullmatch(self)
        return Size.parse(self) if percent is None else int(whole * float(percent[1]) / 100)
