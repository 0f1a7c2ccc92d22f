"""The needs that servers meet or do not meet, as far as it is known now.

    saw(server, checks) ─┬─ a need that is not met any more ──► one log line, with what to do
                         ├─ one that is met again ────────────► one log line
                         └─ one that cannot be checked ───────► one log line per server

The state of a server that does not answer stays as it was seen last.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

log = logging.getLogger(__name__)

Effect = Literal["stale", "cost"]
"""The harm that is possible: old values are answered (`stale`), or, with no old value ever
answered, copies, changes or writes are lost or refused (`cost`)."""


class Check(Struct, frozen=True):
    """The outcome of one look at a server for one need."""

    need: str
    """The need's name, which is also a label of the metric."""
    effect: Effect
    """The harm that is possible while the need is not met."""
    is_met: bool | None
    """None if the server does not tell."""
    why: str = ""
    """The wrong setting, and the harm that it does; empty unless the need is not met."""
    remedy: str = ""
    """The right setting, for people; empty unless the need is not met."""


class Findings:
    """The checks of all servers that an instance uses, the last ones of each."""

    def __init__(self) -> None:
        self._checks: dict[tuple[str, str], Sequence[Check]] = {}

    def __repr__(self) -> str:
        return f"<Findings [{len(self._checks)} servers, {len(self.unmet())} needs not met]>"

    def saw(self, kind: str, server: str, checks: Sequence[Check]) -> None:
        """Takes the checks of a look at a server of this kind, and logs what is new in them."""
        before = {check.need: check for check in self._checks.get((kind, server), ())}
        self._checks[kind, server] = checks
        for check in checks:
            was_met = before[check.need].is_met if check.need in before else True
            if check.is_met is False and was_met is not False:
                log.warning("%s %s, %s: %s; %s", kind, server, check.need, check.why, check.remedy)
            elif check.is_met and was_met is False:
                log.warning("%s %s, %s: as it must be again", kind, server, check.need)
        untold = {check.need for check in checks if check.is_met is None}
        if untold and not before:
            log.info("%s %s does not tell whether it has: %s", kind, server, ", ".join(sorted(untold)))

    def forget(self, kind: str, server: str) -> None:
        """Drops what was seen of a server that is not used any more."""
        self._checks.pop((kind, server), None)

    def unmet(self) -> Sequence[Mapping[str, str]]:
        """The needs that are not met, for people; those with the effect `stale` come first."""
        found = [(f"{kind} {server}", check) for kind, server, check in self._all() if check.is_met is False]
        found.sort(key=lambda one: (one[1].effect != "stale", one[0], one[1].need))
        return [
            {"server": server, "need": one.need, "effect": one.effect, "why": one.why, "remedy": one.remedy}
            for server, one in found
        ]

    def untold(self) -> Mapping[str, Sequence[str]]:
        """The needs that cannot be checked, by server."""
        found: dict[str, list[str]] = {}
        for kind, server, check in self._all():
            if check.is_met is None:
                found.setdefault(f"{kind} {server}", []).append(check.need)
        return found

    def statistics(self) -> Mapping[tuple[str, ...], int]:
        """1 for each need that is not met, 0 for each that is met; unknown ones are left out."""
        return {
            (kind, server, check.need, check.effect): int(not check.is_met)
            for kind, server, check in self._all()
            if check.is_met is not None
        }

    def _all(self) -> Iterator[tuple[str, str, Check]]:
        for (kind, server), checks in self._checks.items():
            yield from ((kind, server, check) for check in checks)
