"""A verdict is reported to people and to machines."""

import json

from cachesvc.commands.check.history import Fault, Load, Read, Record
from cachesvc.commands.check.judge import judge
from cachesvc.commands.check.report import as_json, plain
from cachesvc.commands.check.verdicts import MOST_EXAMPLES, spoken
from tests.unit.commands.check_histories import RUN, event, fenced, merged, read, write

AS_OF = 1_700_000_000_000_001
STALE = read(0, 3_000, as_of=AS_OF)
HISTORY: list[Record] = [
    write(1, 1),
    event(1, 2, 2_999),
    fenced(1, "7-1"),
    merged("7-1", 1_800),
    read(1, 2_000),
    STALE,
]


def charges(check: str, records: list[Record]) -> list[str]:
    """The lines of the report on a violated check."""
    lines = plain(judge([RUN, *records])).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{check} VIOLATED:"))
    return lines[first + 1 : lines.index("", first)]


def test_a_violation_is_told_with_the_guilty_and_the_lines_that_prove_it() -> None:
    assert charges("C3", HISTORY) == [
        "  eu/eu-a answered version 0 of k from l1, 1.2 ms after it had merged the fence of version 1",
        "    key k, tier l1, instance eu/eu-a, as_of 2023-11-14T22:13:20.000001+00:00, owed version 1,"
        " fence eu:7-1, at 1970-01-01T00:00:00.001000+00:00",
        '    {"type":"write","key":"k","w":1,"committed":1}',
        '    {"type":"announcement","how":"event","region":"eu","instance":"","writes":[["k",1]],'
        '"started":2,"ended":2999,"id":"eu:1-0"}',
        '    {"type":"fenced","id":"eu:1-0","region":"eu","position":"7-1","at":1000}',
        '    {"type":"merged","instance":"eu/eu-a","region":"eu","position":"7-1","at":1800}',
        '    {"type":"read","instance":"eu/eu-a","key":"k","started":3000,"ended":3001,"outcome":"hit","w":0,"tier":"l1",'
        '"as_of":1700000000000001}',
    ]


def test_of_many_violations_the_first_few_are_shown_and_the_others_counted() -> None:
    lines = charges(
        "C3", [*HISTORY, *(read(0, started) for started in range(4_000, 4_000 + 2 * MOST_EXAMPLES))]
    )
    assert sum("answered version 0" in line for line in lines) == MOST_EXAMPLES
    assert lines[-1] == f"  and {MOST_EXAMPLES + 1} more"


def test_each_check_says_what_it_came_to() -> None:
    table = plain(judge([RUN, *HISTORY])).splitlines()[2:13]
    assert [line.partition(":")[0] for line in table] == [
        "C0   holds         2 reads judged",
        "C1   not observed  0 reads judged",
        "C2   not observed  0 reads judged",
        "C3   VIOLATED      1 of 2 reads",
        "C4   not observed  0 reads judged",
        "C5   not observed  0 reads judged",
        "C6   not observed  no load under a lease was stored; loads of read-through are among the figures",
        "C7   not observed  0 reads judged",
        "C8   not observed  no fault was recorded",
        "C9   not observed  2 reads in fault-free time; 100 are the least",
        "C10  not observed  no read came just after a put in fault-free time",
    ]


def test_a_share_that_is_too_low_is_told_without_blaming_a_single_read() -> None:
    far: list[Record] = [read(0, 1, tier="l3") for _ in range(200)]
    assert charges("C9", far) == ["  0.0% of 200 reads came from L1 and L2"]


def test_the_figures_close_the_report() -> None:
    extra: list[Record] = [
        Load(key="k", w=0, started=10, ended=30),
        Fault(what="redis killed", started=5, ended=2_500),
    ]
    report = plain(judge([RUN, *HISTORY, *extra]))
    assert report.endswith("""
2 reads (0 failed), 1 writes, 1 announcements
reads took p50 1 µs, p99 1 µs
1 reads missed a write committed before they began, the latest 3.0 ms after its commit
1 loads of the origin, 0 of them while another load of the key ran

From commit to the last read that missed it
tier  region  writes missed  p50     p99     p99.99  longest
l1    eu      1              3.0 ms  3.0 ms  3.0 ms  3.0 ms

Keys loaded most
key  loads  announcements  most at once  at µs
k    1      1              1             10

Recovery
fault         ended at µs  reads that suffered later  for
redis killed  2500         1                          501 µs
""")


def test_a_history_that_was_cut_short_is_said() -> None:
    verdict = judge([RUN, *HISTORY])
    assert "cut short" in plain(verdict, cut_short=True)
    assert "cut short" not in plain(verdict)


def test_machines_get_the_same_as_json() -> None:
    report = json.loads(as_json(judge([RUN, *HISTORY])))
    assert report["broken"] == ["C3"]
    assert "C1" in report["unobserved"]
    assert report["run"]["seed"] == RUN.seed
    (c3,) = (finding for finding in report["findings"] if finding["check"] == "C3")
    assert (c3["state"], c3["judged"], c3["broken"]) == ("VIOLATED", 2, 1)
    proof = c3["examples"][0]["proof"]
    assert [line["type"] for line in proof] == ["write", "announcement", "fenced", "merged", "read"]
    assert report["figures"]["stale_reads"] == 1


def test_a_bad_read_is_accused_even_if_nothing_is_known_of_its_write() -> None:
    foreign = Read(
        instance="eu/eu-a", key="k", started=1, ended=2, outcome="hit", reason="foreign", tier="l2"
    )
    assert charges("C0", [foreign])[0] == "  eu/eu-a answered bytes that are no value of this key (k from l2)"


def test_times_are_said_as_people_do() -> None:
    assert [spoken(us) for us in (0, 999, 1_000, 999_949, 1_000_000, 61_500_000)] == [
        "0 µs",
        "999 µs",
        "1.0 ms",
        "999.9 ms",
        "1.000 s",
        "61.500 s",
    ]
