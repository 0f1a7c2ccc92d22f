"""The judge: makes a verdict from a history. It does no I/O, and O(n log n) steps for n
records."""

from collections.abc import Iterable

from cachesvc.commands.check.history import Record
from cachesvc.commands.check.judge import answers, freshness, loads, puts
from cachesvc.commands.check.judge.figures import figures
from cachesvc.commands.check.judge.indexed_history import IndexedHistory, NoRunError
from cachesvc.commands.check.verdicts import Verdict

__all__ = ["NoRunError", "judge"]


def judge(records: Iterable[Record], *, grace_us: int = 250_000, least_share: float = 0.8) -> Verdict:
    """Applies every check to one run.

    `grace_us`: the time that a read may take beyond its deadline, for the network and a busy
    checker. `least_share`: the share of reads in fault-free time that has to come from L1 and L2.
    Raises `NoRunError` if there is no `Run` among the records.
    """
    history = IndexedHistory(records)
    return Verdict(
        run=history.run,
        findings=(
            answers.of_real_writes(history),
            freshness.after_calls(history),
            freshness.within_the_bound(history),
            freshness.after_merges(history),
            freshness.with_tokens(history),
            freshness.in_sessions(history),
            loads.one_lease_at_a_time(history),
            answers.in_time(history, grace_us),
            freshness.after_the_last_fault(history),
            loads.still_a_cache(history, least_share),
            puts.kept(history),
        ),
        figures=figures(history),
    )
