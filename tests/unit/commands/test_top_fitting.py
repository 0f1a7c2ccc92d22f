"""The view on 80 × 24: everything fits, and what is wrong is said before anything else."""

from collections.abc import Sequence
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cachesvc.commands.top.fitting import Sheet, View
from cachesvc.commands.top.picture import Picture
from cachesvc.commands.top.rows import (
    ChangeRow,
    FeedRow,
    HotRow,
    InstanceRow,
    LagRow,
    NamespaceRow,
    OriginRow,
    Queue,
    ServerRow,
)
from cachesvc.commands.top.scrape import Unmet
from cachesvc.commands.top.verdict import troubles
from cachesvc.commands.top.view import view

LONG = "cachesvc-production-7d9f8b6c5f-"
FULL = Unmet(
    "cell cell-7-of-the-tenants", "full", "cost", "it is full (512.0 of 512.0 MiB): it refuses fences"
)
DEAD = Unmet("queue eu-central-1", "dead-letters", "stale", "3 dead letters stand in it: no invalidation")
LOOP = {"sweep of L1": "has ended: KeyError at l1.py:9"}
CHANGE = ChangeRow(0.0, "eu-central-1", f"{LONG}deployer", f"{LONG}1", "namespace-1", "12 keys", "over 5m")


def picture(*, is_sick: bool) -> Picture:
    """A deployment of 8 instances, 6 memcached servers, 12 cells, 3 regions and 30 namespaces."""
    cells = [
        ServerRow(f"cell-{number}-of-the-tenants", "cell", 12_000.0, None, 0.0, 0.0003, 0.2, 5e8, 5.4e8, 12.0)
        for number in range(12)
    ]
    if is_sick:
        cells[11] = ServerRow("cell-11-of-the-tenants", "cell", 1.0, errors=3.0, failing_at=(f"{LONG}0",))
    return Picture(
        instances=[
            InstanceRow(
                f"{LONG}{number}",
                ready=not (is_sick and number == 5),
                requests=12_345.6,
                p50=0.00048,
                p99=0.0123,
                hit_ratio=0.987,
                l1_bytes=5e7,
                l1_budget=2.5e8,
                l1_eviction_age=7200.0,
                in_progress=12,
                shed=0.0,
                topology_version=17,
                conditions=(FULL, DEAD) if is_sick else (),
                loops=LOOP if is_sick and number == 3 else {},
            )
            for number in range(8)
        ],
        servers=[
            ServerRow("l1", "tier", 1.0, 0.5, 0.0),
            ServerRow("l2", "tier", 1.0, 0.5, 0.0),
            *(
                ServerRow(f"memcached-{number}", "memcached", 9.0, 0.5, 0.0, 0.1, 0.2, 1e9, 2e9)
                for number in range(6)
            ),
            ServerRow("l3", "tier", 1.0, 0.5, 0.0),
            *cells,
        ],
        feeds=[
            FeedRow(
                region,
                0.4,
                f"{LONG}0",
                {f"{LONG}{n}": "out of reach" if is_sick and not n else "read" for n in range(8)},
            )
            for region in ("eu-central-1", "us-east-1", "ap-south-1")
        ],
        lags=[LagRow("published", 0.01, 0.2), LagRow("merged", 0.02, 0.4)],
        queue=Queue(12, 3 if is_sick else 0, 0.0),
        namespaces=[NamespaceRow(f"namespace-{n}", 100.0 - n, 0.5, 0.01, 0.0, 1e7, 2.0) for n in range(30)],
        origins=[OriginRow(f"namespace-{n}", 1, 64, 0, f"{LONG}0", 10.0, 0.0, 0.1, 0.2) for n in range(9)],
        hot=[HotRow("namespace-1", f"{{ws-{n}}}:block:{'x' * 90}", 0.1, 100.0) for n in range(8)],
        tokens_refused_at=[],
    )


def lines(shown: View, width: int, height: int | None) -> Sequence[str]:
    out = StringIO()
    Console(file=out, width=width, force_terminal=False).print(shown, height=height)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("is_sick", [False, True])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 23), (60, 15), (130, 50), (40, 10)])
def test_a_large_deployment_fits(*, is_sick: bool, width: int, height: int) -> None:
    seen = picture(is_sick=is_sick)
    shown = lines(view(seen, troubles(seen), [CHANGE]), width, height)
    assert len(shown) <= height
    assert max(map(cell_len, shown)) <= width


def test_on_80_by_24_what_is_wrong_is_said_whole_and_seen_in_the_tables() -> None:
    seen = picture(is_sick=True)
    shown = lines(view(seen, troubles(seen), [CHANGE]), 80, 24)
    text = " ".join(" ".join(shown).split())
    for sentence in (
        f"{LONG}5 is not ready",
        "cell cell-11-of-the-tenants does not answer at",
        "cell cell-7-of-the-tenants: it is full (512.0 of 512.0 MiB): it refuses fences",
        "queue eu-central-1: 3 dead letters stand in it: no invalidation",
        f"the queue of eu-central-1 does not answer at {LONG}0",
        f"{LONG}3: sweep of L1 has ended: KeyError at l1.py:9",
    ):
        assert sentence in text
    (instance,) = (line for line in shown if "not ready" in line and "is not" not in line)
    assert instance.endswith("0") or instance.split()[0].endswith("5"), "a long name keeps its end"
    assert any(line.startswith("  cell-11-of-the-tenants") and "fails at 1" in line for line in shown)
    assert shown[-1].startswith("not shown: ")


def test_in_a_pipe_everything_is_shown() -> None:
    seen = picture(is_sick=True)
    shown = "\n".join(lines(view(seen, troubles(seen), [CHANGE]), 130, None))
    for number in range(12):
        assert f"cell-{number}-of-the-tenants" in shown
    for number in range(8):
        assert f"{LONG}{number}" in shown
    assert "evicted at age" in shown
    assert "not shown" not in shown


def test_more_troubles_than_lines_leave_room_for_the_tables_and_say_how_many_there_are() -> None:
    sheet = Sheet("instance", "state")
    for number in range(20):
        sheet.add_row(f"i-{number}", "silent" if number == 19 else "ready", is_bad=number == 19)
    shown = lines(View([Text(f"trouble {number}") for number in range(40)], [sheet]), 80, 24)
    assert len(shown) == 24
    assert shown[0] == "trouble 0"
    assert any(line.split() == ["i-19", "silent"] for line in shown)
    assert any(line.startswith("instance (") for line in shown)
    assert shown[-1] == "not shown: 29 more lines of what is wrong (top --once | cat has all)"


@given(
    st.lists(
        st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=120), min_size=1, max_size=30
    ),
    st.lists(st.lists(st.text(st.characters(categories=["L", "N"]), max_size=60), min_size=1, max_size=8)),
    st.integers(20, 200),
    st.integers(4, 60),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_shown_fits(said: list[str], tables: list[list[str]], width: int, height: int) -> None:
    sheets = []
    for words in tables:
        sheet = Sheet("name", "state", "number", spare=("number",))
        for word in words:
            sheet.add_row(word, word[::-1], str(len(word)))
        sheets.append(sheet)
    shown = lines(View([Text(one) for one in said], sheets), width, height)
    assert len(shown) <= height
    assert all(cell_len(line) <= width for line in shown)
