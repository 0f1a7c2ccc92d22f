"""The verdict: per check how much was judged and what broke it, with proof, and figures."""

from typing import Literal

from msgspec import Struct

from cachesvc.commands.check.history import Record, Run

MOST_EXAMPLES = 5
"""The most violations of one check that are kept with their proof; all are counted."""


def spoken(us: int) -> str:
    """A time for people: `412 µs`, `3.2 ms`, `1.204 s`."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.3f} s"


class Violation(Struct, frozen=True):
    """One read or load that broke a check, and the tier and instance that did it."""

    says: str
    """The violation, in a sentence."""
    key: str
    tier: str = ""
    instance: str = ""
    as_of: int = 0
    """The `as_of` of the copy that was answered, µs since the epoch."""
    shown: int | None = None
    """The version that was read."""
    owed: int | None = None
    """The oldest version that the read could lawfully show."""
    fence: str = ""
    """The position of the fence that should have refused the copy, with its region:
    `eu:1700000000000-3`."""
    fence_at: int = 0
    proof: tuple[Record, ...] = ()
    """The records that prove it, in the order in which they happened."""


class Finding(Struct, frozen=True):
    """The result of one check."""

    check: str
    """`C0` to `C10`."""
    rule: str
    of: Literal["reads", "loads"] = "reads"
    """The kind of records that were judged."""
    judged: int = 0
    """How many reads or loads the check could judge."""
    broken: int = 0
    examples: tuple[Violation, ...] = ()
    """The first few of `broken`; empty where no single one is at fault."""
    unobserved: str = ""
    """Why the history cannot show that the check holds; empty if it can."""
    note: str = ""

    @property
    def state(self) -> Literal["holds", "VIOLATED", "not observed"]:
        """The result in words.

        A check with nothing to judge is never `holds`. A violation counts, whatever else was not
        observed.
        """
        if self.broken:
            return "VIOLATED"
        return "not observed" if self.unobserved or not self.judged else "holds"


class Lag(Struct, frozen=True):
    """How long old values were seen at one tier of one region, in µs.

    The time is from the commit of a write to the last read that missed it.
    """

    tier: str
    region: str
    writes: int
    """Writes that at least one later read missed; the quantiles are over these."""
    p50: int
    p99: int
    p9999: int
    longest: int


class Crowd(Struct, frozen=True):
    """The loads of one key."""

    key: str
    loads: int
    announcements: int
    """Announcements of this key's writes, which may explain the loads."""
    overlapping: int
    """Loads that began while another load of the key was running."""
    most_at_once: int
    at: int
    """The time at which `most_at_once` of them ran together."""


class Recovery(Struct, frozen=True):
    """How long reads suffered after the end of a fault, in µs.

    The time is until the end of the last read that failed, or that did not show what had been
    committed when the fault ended. A read that began after the next fault began is not counted.
    """

    what: str
    ended: int
    took: int
    suffered: int
    """How many reads suffered."""


class Figures(Struct, frozen=True):
    """Figures of a run, which no check judges."""

    reads: int = 0
    writes: int = 0
    announcements: int = 0
    errors: int = 0
    stale_reads: int = 0
    """Reads that missed a write committed before they began. Most are lawful, because the
    announcement was still on its way."""
    longest_stale: int = 0
    """The longest time between a commit and a later read that missed it, µs."""
    read_p50: int = 0
    read_p99: int = 0
    """The 99th percentile of the reads' durations, µs, failed reads included (`read_p50`: the
    median)."""
    loads: int = 0
    overlapping_loads: int = 0
    """Loads that began while another load of the same key was running."""
    lags: tuple[Lag, ...] = ()
    crowds: tuple[Crowd, ...] = ()
    """The keys with the most loads, the most loaded first."""
    recoveries: tuple[Recovery, ...] = ()


class Verdict(Struct, frozen=True):
    """The result of a run: a finding per check, and figures."""

    run: Run
    findings: tuple[Finding, ...]
    figures: Figures

    @property
    def broken(self) -> tuple[str, ...]:
        """The checks that were violated."""
        return tuple(finding.check for finding in self.findings if finding.state == "VIOLATED")

    @property
    def unobserved(self) -> tuple[str, ...]:
        """The checks that the history could not show to hold."""
        return tuple(finding.check for finding in self.findings if finding.state == "not observed")

    def finding(self, check: str) -> Finding:
        """The finding of a check, such as `C3`."""
        return next(finding for finding in self.findings if finding.check == check)
