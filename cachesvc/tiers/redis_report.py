"""The report of a Redis server on itself, from one exchange of three commands.

TIME                 its clock
INFO default         its version, role, memory, replicas
CONFIG GET …         the settings that INFO does not have; managed servers often refuse it
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

SETTINGS = ("save", "min-replicas-to-write", "min-replicas-max-lag")
"""The settings that CONFIG GET is asked for."""
COMMANDS: tuple[tuple[Any, ...], ...] = (("TIME",), ("INFO", "default"), ("CONFIG", "GET", *SETTINGS))


def certain_offset_us(theirs_us: int, sent_us: int, received_us: int) -> int:
    """Returns how far a server's clock is off for certain: less half of the exchange's time.

    A server that is far away, or an exchange that waited for a connection, then shows no offset.
    """
    return _beyond(theirs_us - (sent_us + received_us) // 2, (received_us - sent_us) // 2)


def _beyond(offset_us: int, within_us: int) -> int:
    return max(0, offset_us - within_us) if offset_us > 0 else min(0, offset_us + within_us)


class RedisReport(Struct, frozen=True):
    """One server's report on itself."""

    info: Mapping[str, str]
    """The fields of INFO."""
    settings: Mapping[str, str] | None
    """The settings by name; None if the server refuses CONFIG GET."""
    clock_offset_us: int
    """The server's clock less this instance's clock."""
    within_us: int
    """Half of the exchange's time, by which the offset can be wrong."""
    dead_letters: int | None = None
    """The length of `changes:dead`; None for a server that is no queue."""

    @property
    def certain_offset_us(self) -> int:
        """How far the server's clock is off for certain."""
        return _beyond(self.clock_offset_us, self.within_us)

    @property
    def memory_used_bytes(self) -> int | None:
        """The memory that the server uses; None if INFO does not say it."""
        return whole(self.info.get("used_memory"))

    @property
    def memory_limit_bytes(self) -> int | None:
        """The server's `maxmemory`; None if there is none."""
        return whole(self.info.get("maxmemory")) or None

    @classmethod
    def of(
        cls,
        time: Any,
        info: Mapping[str, str],
        settings: Mapping[Any, Any] | None,
        *,
        sent_us: int,
        received_us: int,
        dead_letters: int | None = None,
    ) -> "RedisReport":
        """Returns the report; `time` is the answer to TIME, the other times are of the own clock."""
        seconds, us = map(int, time)
        offset = seconds * 1_000_000 + us - (sent_us + received_us) // 2
        found = None if settings is None else {_text(name): _text(value) for name, value in settings.items()}
        return cls(info, found, offset, (received_us - sent_us) // 2, dead_letters)


def fields_of(info: bytes) -> Mapping[str, str]:
    """Returns the fields of an answer to INFO."""
    fields = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in fields if colon}


def fields_with(name: str, info: Mapping[str, str]) -> Sequence[str]:
    """Returns all values of a part of a field, such as `expires` in `db0:keys=1,expires=0`."""
    return re.findall(rf"\b{name}=(\d{{1,18}})", " ".join(info.values()))


def version_of(text: str) -> tuple[int, int] | None:
    """Returns the major and minor version that the text begins with; None if it names none."""
    found = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def whole(said: object) -> int | None:
    """Returns the whole number that a server said; None if it is none, or beyond 64 bits."""
    try:
        number = int(said)  # type: ignore[call-overload]  # anything that a server said
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 1 << 63 else None


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
