"""The words: what a read would do with the copies there are, and which copy is the old one, and why."""

import pytest

from cachesvc.coherence.admission import Standing
from cachesvc.config.topology import Namespace, Origin
from cachesvc.explain.answer import Copy, FencesSeen, Home, LeaseSeen, Now, Seen
from cachesvc.explain.verdict import RULES, decide, marked, oldest, verdict

THROUGH = Namespace("web", origin=Origin("http://o/{key}"))
ASIDE = Namespace("web")
NOTHING = Copy(held=False)
FENCES = FencesSeen(0, 0, "", 0.4, 2.0)


def copy(standing: str = "fresh", *, etag: str = "e", as_of: int = 10, **more: object) -> Copy:
    refused = ("the floor",) if standing == "refused" else ()
    return Copy(held=True, standing=standing, etag=etag, as_of=as_of, refused_by=refused, **more)  # type: ignore[arg-type]  # fields


def seen(name: str, *copies: Copy, would: str = "answer from l1", tier: str = "l1") -> Seen:
    tiers = dict(zip(("l1", "l2", "l3"), (*copies, NOTHING, NOTHING, NOTHING), strict=False))
    region, _, instance = name.partition("/")
    return Seen(region, instance, tiers=tiers, fences=FENCES, now=Now(would, "so it is", "The rule", tier))


def test_every_standing_has_its_rule() -> None:
    assert set(RULES) == set(Standing)


@pytest.mark.parametrize(
    ("l1", "l2", "l3", "would"),
    [
        ("fresh", "fresh", "fresh", "answer from l1"),
        ("stale", "fresh", "fresh", "answer stale from l1"),
        ("refused", "fresh", "fresh", "answer from l2"),
        ("dead", "stale", "fresh", "answer from l3"),
        ("refused", "stale", "refused", "answer stale from l2"),
        ("refused", "refused", "refused", "load from the origin"),
        ("last resort", "dead", "dead", "load from the origin"),
    ],
)
def test_tiers_are_asked_in_the_order_of_a_read(l1: str, l2: str, l3: str, would: str) -> None:
    tiers = {"l1": copy(l1), "l2": copy(l2), "l3": copy(l3)}
    assert decide(tiers, Home(), THROUGH, asks_l2=True, overloaded=False).a_read_would == would


def test_of_stale_copies_beyond_l1_the_newest_is_answered() -> None:
    tiers = {"l1": NOTHING, "l2": copy("stale", as_of=5), "l3": copy("stale", as_of=6)}
    assert decide(tiers, Home(), THROUGH, asks_l2=True, overloaded=False).tier == "l3"


def test_a_stale_absence_is_not_answered() -> None:
    tiers = {"l1": copy("stale", negative=True), "l2": NOTHING, "l3": NOTHING}
    assert (
        decide(tiers, Home(), THROUGH, asks_l2=True, overloaded=False).a_read_would == "load from the origin"
    )


def test_a_fresh_absence_is() -> None:
    tiers = {"l1": copy(negative=True), "l2": NOTHING, "l3": NOTHING}
    now = decide(tiers, Home(), THROUGH, asks_l2=True, overloaded=False)
    assert now.a_read_would == "answer that there is no such value, from l1"


@pytest.mark.parametrize(
    ("home", "namespace", "would"),
    [
        (Home(), THROUGH, "load from the origin"),
        (Home(), ASIDE, "miss"),
        (Home(lease=LeaseSeen("us/us-b", 1, 2)), THROUGH, "wait for another's load"),
        (Home(lease=LeaseSeen("us/us-b", 1, 2)), ASIDE, "miss"),
        (Home(unavailable="c1: down"), THROUGH, "load from the origin without a lease"),
    ],
)
def test_without_a_copy_home_and_namespace_decide(home: Home, namespace: Namespace, would: str) -> None:
    tiers = {"l1": NOTHING, "l2": NOTHING, "l3": NOTHING}
    assert decide(tiers, home, namespace, asks_l2=True, overloaded=False).a_read_would == would


def test_overload_is_said_of_what_needs_more_than_l1() -> None:
    tiers = {"l1": NOTHING, "l2": copy(), "l3": NOTHING}
    assert "503" in decide(tiers, Home(), THROUGH, asks_l2=True, overloaded=True).but
    assert not decide({"l1": copy()}, Home(), THROUGH, asks_l2=True, overloaded=True).but


def test_copies_that_differ_from_a_newer_one_are_marked() -> None:
    here, there = marked([seen("eu/a", copy(etag="new", as_of=20)), seen("us/b", copy(etag="old", as_of=10))])
    assert here.tiers["l1"].differs == ""
    assert there.tiers["l1"].differs == "newer at l1 of eu/a"


def test_an_older_copy_of_the_same_version_is_not() -> None:
    _, there = marked([seen("eu/a", copy(as_of=20)), seen("us/b", copy(as_of=10))])
    assert there.tiers["l1"].differs == ""


def test_the_oldest_that_is_answered_anywhere_is_named_and_what_is_refused_is_not() -> None:
    all_seen = marked(
        [
            seen("eu/a", copy(etag="new", as_of=20)),
            seen("us/b", copy(etag="old", as_of=10), copy("refused", as_of=5)),
        ]
    )
    found = oldest(all_seen, Home())
    assert found is not None
    assert (found.where, found.why) == (
        "l1 of us/b",
        "another version is newer at l1 of eu/a, and no fence is between them: that change was not announced",
    )


def test_a_fence_that_has_not_arrived_is_why() -> None:
    found = oldest([seen("us/b", copy(as_of=10, tags=("t",)))], Home(tag_fences={"t": 10}))
    assert found is not None
    assert (
        found.why == "its home knows a later fence that us/b has not merged yet: its staleness bound is 0.4 s"
    )


@pytest.mark.parametrize(
    ("ttl", "why"), [(5.0, "a soft or paced fence made it stale"), (-2.5, "it is 2.5 s past its freshness")]
)
def test_a_copy_may_be_stale_for_two_reasons(ttl: float, why: str) -> None:
    found = oldest([seen("us/b", copy("stale", ttl_seconds=ttl))], Home())
    assert found is not None
    assert found.why == f"{why}, and it is answered while it is refreshed"


def test_where_nothing_is_answered_nothing_is_old() -> None:
    assert oldest([seen("us/b", copy("refused"))], Home()) is None


def test_the_verdict_names_who_differs_and_who_is_silent() -> None:
    asked = seen("eu/a", copy())
    same = seen("eu/b", NOTHING, copy(), would="answer from l2", tier="l2")
    other = seen("us/a", would="load from the origin", tier="")
    silent = Seen("us", "b", unavailable="no answer within 50 ms")
    assert verdict(asked, [same, other, silent], None) == (
        "A read at eu/a would answer from l1: so it is. At us/a it would load from the origin. "
        "No answer from us/b (no answer within 50 ms)."
    )
