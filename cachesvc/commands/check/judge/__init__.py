"""The judge: a history in, a verdict out. It does no I/O, and n log n steps for n records."""

from collections.abc import Iterable

from cachesvc.commands.check.history import Record
from cachesvc.commands.check.judge import answers, freshness, loads
from cachesvc.commands.check.judge.figures import figures
from cachesvc.commands.check.judge.indexed_history import Docket, NoRunError
from cachesvc.commands.check.verdicts import Verdict

__all__ = ["NoRunError", "judge"]


def judge(records: Iterable[Record], *, grace_us: int = 250_000, least_share: float = 0.8) -> Verdict:
    """Every check on one run.

    `grace_us`: what a read may take beyond its deadline, on its way and in a busy checker. `least_share`: of reads in fault-free
    time from L1 and L2. Without a `Run` among the records: `NoRunError`.
    """
    docket = Docket(records)
    return Verdict(
        run=docket.run,
        findings=(
            answers.of_real_writes(docket),
            freshness.after_calls(docket),
            freshness.within_the_bound(docket),
            freshness.after_merges(docket),
            freshness.with_tokens(docket),
            freshness.in_sessions(docket),
            loads.one_lease_at_a_time(docket),
            answers.in_time(docket, grace_us),
            freshness.after_the_last_fault(docket),
            loads.still_a_cache(docket, least_share),
        ),
        figures=figures(docket),
    )
