"""What a judgement says: per check how many were judged and how many broke it, and for the first few what proves it."""

from typing import Literal

from msgspec import Struct

from cachesvc.commands.check.history import Record, Run

MOST_EXAMPLES = 5
"""Violations of one check that are kept with their proof; the others are counted."""


def spoken(us: int) -> str:
    """A time as people say it: `412 µs`, `3.2 ms`, `1.204 s`."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.3f} s"


class Violation(Struct, frozen=True):
    """One read or load that broke a check, and who is guilty."""

    says: str
    """The accusation, in a sentence."""
    key: str
    tier: str = ""
    instance: str = ""
    as_of: int = 0
    """Of the copy that was answered, µs since the epoch."""
    shown: int | None = None
    """The version that was read."""
    owed: int | None = None
    """The version that had to be read, or a newer one."""
    fence: str = ""
    """Position of the fence that the copy should have fallen to, with its region's name: `eu:1700000000000-3`."""
    fence_at: int = 0
    proof: tuple[Record, ...] = ()
    """The lines of the history that show it, in the order in which they happened."""


class Finding(Struct, frozen=True):
    """What one check came to."""

    check: str
    """`C0` to `C9`."""
    rule: str
    of: Literal["reads", "loads"] = "reads"
    """What was judged."""
    judged: int = 0
    """How many the check had something to say about."""
    broken: int = 0
    examples: tuple[Violation, ...] = ()
    """The first few of `broken`; none where no single one is to blame."""
    unobserved: str = ""
    """Why the history cannot show that the check holds; empty if it can."""
    note: str = ""

    @property
    def state(self) -> Literal["holds", "VIOLATED", "not observed"]:
        """Nothing to judge is never `holds`; and a violation stands, whatever else was not observed."""
        if self.broken:
            return "VIOLATED"
        return "not observed" if self.unobserved or not self.judged else "holds"


class Lag(Struct, frozen=True):
    """How long old values were seen, where: from the commit of a write to the last read that still missed it. µs."""

    tier: str
    region: str
    writes: int
    """Writes that were missed by at least one later read; the quantiles are over these."""
    p50: int
    p99: int
    p9999: int
    longest: int


class Crowd(Struct, frozen=True):
    """How often the origin was asked for one key."""

    key: str
    loads: int
    announcements: int
    """Of this key's writes: what may explain the loads."""
    overlapping: int
    """Loads that began while another was running."""
    most_at_once: int
    at: int
    """When `most_at_once` of them ran together."""


class Recovery(Struct, frozen=True):
    """How long reads suffered after a fault's end: until the end of the last read that failed, or that did not show what had been
    committed when the fault ended. A read that began after the next fault did is not counted. µs."""

    what: str
    ended: int
    took: int
    suffered: int
    """Such reads."""


class Figures(Struct, frozen=True):
    reads: int = 0
    writes: int = 0
    announcements: int = 0
    errors: int = 0
    stale_reads: int = 0
    """Reads that missed a write committed before they began. Most are lawful: the announcement was still on its way."""
    longest_stale: int = 0
    """The longest time between a commit and a later read that missed it, µs."""
    read_p50: int = 0
    read_p99: int = 0
    """How long reads took, µs; those that failed included."""
    loads: int = 0
    overlapping_loads: int = 0
    """Loads that began while another of the same key was running."""
    lags: tuple[Lag, ...] = ()
    crowds: tuple[Crowd, ...] = ()
    """The keys that were loaded most, first."""
    recoveries: tuple[Recovery, ...] = ()


class Verdict(Struct, frozen=True):
    run: Run
    findings: tuple[Finding, ...]
    figures: Figures

    @property
    def broken(self) -> tuple[str, ...]:
        """The checks that were violated."""
        return tuple(finding.check for finding in self.findings if finding.state == "VIOLATED")

    @property
    def unobserved(self) -> tuple[str, ...]:
        return tuple(finding.check for finding in self.findings if finding.state == "not observed")

    def finding(self, check: str) -> Finding:
        return next(finding for finding in self.findings if finding.check == check)
