"""The fast judge agrees with the rules of C1 to C5 read out aloud, on small histories in which everything happens at once.

The oracle asks of each read and each write, by itself, whether the one is owed by the other. It shares no code with the judge.
"""

from collections.abc import Iterator
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.commands.check.history import Announcement, Fenced, Merged, Read, Record, Run, Write
from cachesvc.commands.check.judge import judge

KEYS = ("a", "b")
INSTANCES = ("eu/eu-a", "eu/eu-b", "us/us-a")
REGIONS = ("eu", "us")
RUN = Run(seed=0, instances=INSTANCES, max_lag_us=4, heartbeat_us=1, skew_us=1)
BOUND = 6
NEWEST = 4

moments = st.integers(0, 30)
"""Few, so that much happens in the same µs."""
versions = st.tuples(st.sampled_from(KEYS), st.integers(1, NEWEST))
positions = st.integers(0, 12).map(lambda number: f"7-{number}")


@st.composite
def announcements(draw: st.DrawFn) -> Announcement:
    started, *failures, ended = sorted(draw(st.lists(moments, min_size=2, max_size=5)))
    instance = draw(st.sampled_from(INSTANCES))
    how: Literal["api", "event", "put"] = draw(st.sampled_from(("api", "event", "put")))
    return Announcement(
        how=how,
        region=instance[:2],
        instance="" if how == "event" else instance,
        writes=tuple(draw(st.lists(versions, min_size=1, max_size=1 if how == "put" else 2))),
        started=started,
        ended=ended,
        id=draw(st.sampled_from(["", *(f"eu:{number}-0" for number in range(6))])),
        wait=draw(st.sampled_from(["none", "region", "global"])),
        reached=draw(st.booleans()),
        failures=tuple(failures),
        queue_down=draw(st.booleans()),
    )


@st.composite
def reads(draw: st.DrawFn) -> Read:
    started, ended = sorted(draw(st.tuples(moments, moments)))
    outcome = draw(st.sampled_from(["hit", "hit", "hit", "absent", "miss", "error"]))
    return Read(
        instance=draw(st.sampled_from(INSTANCES)),
        key=draw(st.sampled_from(KEYS)),
        started=started,
        ended=ended,
        outcome=outcome,
        w=draw(st.integers(0, NEWEST)) if outcome == "hit" else None,
        tier=draw(st.sampled_from(["l1", "l2", "l3", "origin", "near"])),
        session=draw(st.sampled_from(["", "s", "t"])),
        token_writes=tuple(draw(st.lists(versions, max_size=2))),
    )


fences = st.builds(
    Fenced, id=st.integers(0, 5).map("eu:{}-0".format), region=st.sampled_from(REGIONS), position=positions
)
merges = st.builds(
    Merged,
    instance=st.sampled_from(INSTANCES),
    region=st.sampled_from(REGIONS),
    position=positions,
    at=moments,
)
histories = st.tuples(
    st.lists(announcements(), max_size=6, unique_by=lambda told: told.id or object()),
    st.lists(fences, max_size=6),
    st.lists(merges, max_size=12),
    st.lists(reads(), max_size=12),
)


def owed_by_c1(told: Announcement, read: Read) -> bool:
    if told.how == "event" or not told.id or read.tier == "near" or read.started <= told.ended:
        return False
    waited_for = {
        "none": [],
        "region": [name for name in INSTANCES if name[:2] == told.instance[:2]],
        "global": INSTANCES,
    }
    return read.instance == told.instance or (told.reached and read.instance in waited_for[told.wait])


def owed_by_c2(told: Announcement, read: Read) -> bool:
    if told.id and read.started - told.ended > BOUND:
        return True
    down = told.how == "event" or told.queue_down
    return (
        down and read.started - told.started > BOUND and any(read.ended <= failed for failed in told.failures)
    )


def owed_by_c3(told: Announcement, fence: Fenced, merges: list[Merged], read: Read) -> bool:
    if told.id != fence.id or not told.id or read.tier == "near":
        return False
    feed = [merge for merge in merges if (merge.instance, merge.region) == (read.instance, fence.region)]
    reached = [merge.at for merge in feed if _number(merge.position) >= _number(fence.position)]
    return any(
        merge.at < read.started and merge.at >= told.started and merge.at >= min(reached, default=99)
        for merge in feed
    )


def _number(position: str) -> int:
    return int(position.partition("-")[2])


def debts(
    told: list[Announcement], fences: list[Fenced], merges: list[Merged], reads: list[Read], read: Read
) -> Iterator[tuple[str, int]]:
    """(check, version) of all that `read` owes."""
    for each in told:
        for version in (w for key, w in each.writes if key == read.key):
            if owed_by_c1(each, read):
                yield "C1", version
            if owed_by_c2(each, read):
                yield "C2", version
            if any(owed_by_c3(each, fence, merges, read) for fence in fences):
                yield "C3", version
    yield from (("C4", w) for key, w in read.token_writes if key == read.key)
    for other in reads:
        if other.session == read.session != "" and other.key == read.key and other.ended < read.started:
            shown = _shown(other)
            if shown is not None:
                yield "C5", shown


def _shown(read: Read) -> int | None:
    return 0 if read.outcome == "absent" else read.w


@settings(max_examples=400, deadline=None)
@given(histories)
def test_each_read_owes_what_the_rules_say(
    history: tuple[list[Announcement], list[Fenced], list[Merged], list[Read]],
) -> None:
    told, fences, merges, reads = history
    judged = dict.fromkeys(("C1", "C2", "C3", "C4", "C5"), 0)
    broken = dict.fromkeys(judged, 0)
    for read in reads:
        shown = _shown(read)
        owes = list(debts(told, fences, merges, reads, read))
        if shown is None:
            continue
        for check in judged:
            owed = [version for name, version in owes if name == check]
            judged[check] += bool(owed)
            broken[check] += any(version > shown for version in owed)
    records: list[Record] = [
        RUN,
        *(Write(key=key, w=w, committed=0) for key in KEYS for w in range(1, NEWEST + 1)),
    ]
    verdict = judge([*records, *told, *fences, *merges, *reads])
    findings = {check: verdict.finding(check) for check in judged}
    assert {check: finding.judged for check, finding in findings.items()} == judged
    assert {check: finding.broken for check, finding in findings.items()} == broken
