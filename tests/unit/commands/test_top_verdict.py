"""From two looks at a deployment to rows, to a verdict, to what stands on the terminal."""

from collections.abc import Mapping
from io import StringIO

import pytest
from msgspec.structs import replace
from rich.console import Console

from cachesvc.commands.top.between import Look
from cachesvc.commands.top.exposition import Exposition
from cachesvc.commands.top.picture import Picture, picture_of
from cachesvc.commands.top.rows import ChangeRow
from cachesvc.commands.top.scrape import HotKey, HotKeys, Ready, Scrape, Silence, Unmet
from cachesvc.commands.top.verdict import troubles
from cachesvc.commands.top.view import view

FIRST = """\
cachesvc_requests_total{namespace="pages",operation="get",outcome="hit"} 100
cachesvc_requests_total{namespace="docs",operation="get",outcome="loaded"} 10
cachesvc_batch_keys_total{namespace="pages",operation="get_many",outcome="stale"} 0
cachesvc_requests_shed_total 0
cachesvc_requests_in_progress 2
cachesvc_request_duration_seconds_bucket{operation="get",le="0.001"} 0
cachesvc_request_duration_seconds_bucket{operation="get",le="+Inf"} 0
cachesvc_lookups_total{tier="l1",outcome="hit"} 100
cachesvc_lookups_total{tier="l1",outcome="miss"} 10
cachesvc_l1_size_bytes 1048576
cachesvc_l1_budget_bytes 67108864
cachesvc_server_keys_total{server="m1",outcome="hit"} 5
cachesvc_server_keys_total{server="m1",outcome="error"} 0
cachesvc_breaker_open{kind="memcached",server="m1"} 0
cachesvc_cell_exchanges_total{cell="c1"} 10
cachesvc_cell_failures_total{cell="c1"} 0
cachesvc_cell_clock_offset_seconds{cell="c1"} 0.001
cachesvc_feed_bound_seconds{region="eu"} 0.25
cachesvc_max_lag_seconds{namespace="pages"} 2
cachesvc_max_lag_seconds{namespace="docs"} 5
cachesvc_origin_running{namespace="docs"} 1
cachesvc_origin_ceiling{namespace="docs"} 4
cachesvc_origin_waiting{namespace="docs"} 0
cachesvc_origin_refused_total{namespace="docs"} 0
cachesvc_changes_backlog 0
cachesvc_changes_waiting 0
cachesvc_changes_overflowed 0
cachesvc_changes_buried_total 3
cachesvc_topology_version 7
"""
THEN = {
    'namespace="pages",operation="get",outcome="hit"} 100': 'namespace="pages",operation="get",outcome="hit"} 180',
    'outcome="loaded"} 10': 'outcome="loaded"} 30',
    'outcome="stale"} 0': 'outcome="stale"} 20',
    'le="0.001"} 0': 'le="0.001"} 50',
    'le="+Inf"} 0': 'le="+Inf"} 100',
    'tier="l1",outcome="hit"} 100': 'tier="l1",outcome="hit"} 180',
    'outcome="hit"} 5': 'outcome="hit"} 9',
    'exchanges_total{cell="c1"} 10': 'exchanges_total{cell="c1"} 14',
}
HOT = (HotKeys("pages", 100, [HotKey("00ab", 0.5, 40.0), HotKey("00cd", 0.1, 8.0)]),)


def scrape(at: float, edits: Mapping[str, str] | None = None, ready: Ready | None = None) -> Scrape:
    text = FIRST
    for old, new in (edits or {}).items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return Scrape(at, Exposition.parse(text), ready or Ready(True, {"eu": "read"}), HOT)


def picture(
    edits: Mapping[str, str] | None = None, ready: Ready | None = None, others: Look | None = None
) -> Picture:
    """A picture of `eu-a` with these numbers at the second look, two seconds after the first."""
    others = others or {}
    before: Look = {"eu-a": scrape(10.0), **others}
    return picture_of(before, {"eu-a": scrape(12.0, THEN | dict(edits or {}), ready), **others})


def test_rows_say_what_happened_between_the_two_looks() -> None:
    seen = picture()
    (instance,) = seen.instances
    assert (instance.requests, instance.hit_ratio, instance.p50, instance.shed) == (50, 100 / 120, 0.001, 0)
    assert [(row.name, row.asked, row.hit_ratio) for row in seen.servers] == [
        ("l1", 40, 1.0),
        ("l2", None, None),
        ("m1", 2, 1.0),
        ("l3", None, None),
        ("c1", 2, None),
    ]
    assert [(row.name, row.reads, row.hit_ratio, row.stale) for row in seen.namespaces] == [
        ("docs", 10, 0.0, 0.0),
        ("pages", 50, 1.0, 0.2),
    ]
    assert [(row.namespace, row.running, row.ceiling, row.worst_at) for row in seen.origins] == [
        ("docs", 1, 4, "eu-a")
    ]
    assert [(row.region, row.bound, row.worst_at) for row in seen.feeds] == [("eu", 0.25, "eu-a")]


def test_hot_keys_of_all_instances_are_one_list() -> None:
    hot = picture(others={"eu-b": scrape(12.0)}).hot
    assert [(row.name, row.share, row.reads) for row in hot] == [("00ab", 0.5, 80.0), ("00cd", 0.1, 16.0)]


def test_what_is_in_order_is_healthy() -> None:
    assert not troubles(picture())


@pytest.mark.parametrize(
    ("edits", "verdict"),
    [
        ({'failures_total{cell="c1"} 0': 'failures_total{cell="c1"} 3'}, "cell c1 does not answer at eu-a"),
        ({"backlog 0": "backlog 0\ncachesvc_polls_failed_total 1"}, "cell c1 does not answer at eu-a"),
        (
            {'breaker_open{kind="memcached",server="m1"} 0': 'breaker_open{kind="memcached",server="m1"} 1'},
            "memcached m1 does not answer (breaker open at eu-a)",
        ),
        ({'server="m1",outcome="error"} 0': 'server="m1",outcome="error"} 4'}, "memcached m1 fails at eu-a"),
        (
            {'{region="eu"} 0.25': '{region="eu"} 3.2'},
            "feed of eu is 3.2 s behind at eu-a, above max_lag of pages",
        ),
        (
            {'{region="eu"} 0.25': '{region="eu"} 5.5'},
            "feed of eu is 5.5 s behind at eu-a, above max_lag of pages and 1 more",
        ),
        (
            {"requests_shed_total 0": "requests_shed_total 60"},
            "eu-a is shedding (30 requests a second refused)",
        ),
        (
            {'running{namespace="docs"} 1': 'running{namespace="docs"} 4'},
            "origin of docs is at its ceiling at eu-a (4 loads, 0 wait)",
        ),
        (
            {'refused_total{namespace="docs"} 0': 'refused_total{namespace="docs"} 3'},
            "origin of docs is too slow: 1.5 loads a second got no turn",
        ),
        ({"changes_waiting 0": "changes_waiting 2"}, "2 changes are parked: a home cell is out of reach"),
        (
            {"changes_overflowed 0": "changes_overflowed 1"},
            "too much is parked for 1 cells: all they hold will be fenced",
        ),
        (
            {"changes_buried_total 3": "changes_buried_total 4"},
            "events are out of rule and become dead letters: invalidations that do not happen",
        ),
        (
            {'offset_seconds{cell="c1"} 0.001': 'offset_seconds{cell="c1"} -0.08'},
            "the clock of cell c1 is -80 ms off",
        ),
        (
            {"backlog 0": 'backlog 0\ncachesvc_cell_twin{cell="c1"} 1'},
            "cell c1 is the same server as another cell, and is refused by eu-a",
        ),
        (
            {"backlog 0": 'backlog 0\ncachesvc_queue_clock_offset_seconds{region="eu"} 60'},
            "the clock of the queue of eu is +60000 ms off",
        ),
        (
            {
                'offset_seconds{cell="c1"} 0.001': 'offset_seconds{cell="c1"} 20',
                "backlog 0": 'backlog 0\ncachesvc_queue_clock_offset_seconds{region="eu"} 20.5',
            },
            "the clock of eu-a is -20250 ms off: all cells and queues disagree with it",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words(edits: Mapping[str, str], verdict: str) -> None:
    assert troubles(picture(edits)) == [verdict]


def test_instances_that_reach_two_servers_as_one_cell_are_named() -> None:
    eu_a, eu_b, us_a = (
        scrape(12.0, {"backlog 0": f'backlog 0\ncachesvc_cell_server{{cell="c1"}} {server}'})
        for server in (7, 8, 7)
    )
    assert troubles(picture(others={"eu-b": eu_b, "us-a": us_a, "eu-a": eu_a})) == [
        "instances reach different servers as cell c1: (eu-a, us-a) (eu-b)"
    ]


def test_what_matters_most_comes_first() -> None:
    edits = {'failures_total{cell="c1"} 0': 'failures_total{cell="c1"} 3', "version 7": "version 8"}
    seen = picture(
        edits, Ready(False, {"eu": "out of reach"}), {"eu-b": Silence("refused"), "eu-c": scrape(12.0)}
    )
    assert troubles(seen) == [
        "eu-b does not answer (refused)",
        "eu-a is not ready",
        "cell c1 does not answer at eu-a",
        "the queue of eu does not answer at eu-a",
        "instances work under different topologies (eu-a: 8, eu-c: 7)",
    ]


def test_instances_that_have_different_documents_of_one_version_are_told_apart() -> None:
    (row,) = picture({"topology_version 7": 'document_info{version="7",hash="aa"} 1'}).instances
    assert row.document == ("7", "aa")
    others = [
        replace(row, name=name, document=(version, content))
        for name, version, content in (("eu-b", "7", "bb"), ("us-a", "7", "aa"), ("us-b", "8", "cc"))
    ]
    said = troubles(replace(picture({}), instances=[row, *others]))
    assert "instances have different documents of version 7 of the topology: (eu-a, us-a) (eu-b)" in said


def test_a_login_that_is_refused_is_said_once_with_what_to_do() -> None:
    why = "cell c1 does not answer: login: WRONGPASS; look at the user and password of `redis`, or of its URL"
    seen = picture({'failures_total{cell="c1"} 0': 'failures_total{cell="c1"} 3'})
    (row,) = seen.instances
    assert troubles(replace(seen, instances=[replace(row, troubles=[why])])) == [f"{why} at eu-a"]


def test_a_deployment_of_nobody_is_not_healthy() -> None:
    assert troubles(picture_of({}, {})) == ["no instance is known"]


def shown(seen: Picture, *changes: ChangeRow) -> str:
    out = StringIO()
    Console(file=out, width=130).print(view(seen, troubles(seen), changes))
    return out.getvalue()


def line(text: str, begin: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.strip().startswith(begin))


def test_the_view_has_a_line_for_each_row_and_the_verdict_first() -> None:
    change = ChangeRow(0.0, "eu", "ops/[anna]", "eu-a", "pages", "2 keys", "over 5m")
    text = shown(picture(others={"eu-b": Silence("connection refused")}), change)
    assert text.startswith("eu-b does not answer (connection refused)")
    assert line(text, "eu-a")[:3] == ["eu-a", "ready", "50"]
    assert ["eu-b", "silent"] in [line.split() for line in text.splitlines()]
    assert line(text, "docs")[:3] == ["docs", "10", "0.0"]
    assert line(text, "00ab") == ["00ab", "pages", "50.0", "%", "40"]
    assert "2 keys over 5m" in text
    assert "ops/[anna]" in text, "what callers write is no markup"


def test_workers_stand_under_their_host_also_one_that_is_silent() -> None:
    metrics = Exposition.parse('cachesvc_workers{host="eu-b"} 2\n')
    seen: dict[str, Scrape | Silence] = {
        "eu-b-0": Scrape(1.0, metrics, Ready(True)),
        "eu-b-1": Silence("connection refused"),
        "eu-a": Scrape(1.0, Exposition({}), Ready(True)),
    }
    lines = shown(picture_of(seen, seen)).splitlines()
    table = [line.split()[:2] for line in lines if "eu-" in line and "does not answer" not in line]
    assert table == [["eu-a", "ready"], ["eu-b"], ["eu-b-0", "ready"], ["eu-b-1", "silent"]]


def test_instances_and_memcached_servers_are_shown_with_their_zone() -> None:
    metrics = Exposition.parse(
        'cachesvc_zone{zone="a"} 1\n'
        'cachesvc_server_zone{server="m1",zone="b"} 1\n'
        'cachesvc_server_keys_total{server="m1",outcome="hit"} 1\n'
    )
    seen: dict[str, Scrape | Silence] = {"eu-a": Scrape(1.0, metrics, Ready(True))}
    text = shown(picture_of(seen, seen))
    assert line(text, "eu-a")[:4] == ["eu-a", "(zone", "a)", "ready"]
    assert line(text, "m1")[:3] == ["m1", "(zone", "b)"]


def test_whose_debug_token_is_another_one_is_said_above_the_digests() -> None:
    seen = picture_of({}, {"eu-a": replace(scrape(1.0), refuses_token=True)})
    assert "hot key (token refused at eu-a)" in shown(seen)


def test_of_an_instance_that_lacks_metrics_the_rest_is_shown() -> None:
    bare = {"eu-a": Scrape(1.0, Exposition({}), Ready(True))}
    text = shown(picture_of(bare, bare))
    assert text.startswith("healthy")
    assert line(text, "eu-a")[:4] == ["eu-a", "ready", "–", "–"]


def test_loops_that_do_not_do_their_work_are_named_with_the_reason() -> None:
    loops = {"heartbeats": "has failed for 7 s: KeyError at server.py:9", "sweep of L1": "has ended"}
    assert troubles(picture(ready=Ready(True, {"eu": "read"}, loops))) == [
        "eu-a: heartbeats has failed for 7 s: KeyError at server.py:9; sweep of L1 has ended"
    ]


def test_names_that_mean_two_things_are_said_once_with_all_who_see_it() -> None:
    ready = Ready(True, {"eu": "read"}, rivals={"queue": "two queues are in use"})
    assert troubles(picture(ready=ready)) == ["eu-a: two queues are in use"]


def test_changes_that_somebody_took_out_of_a_queue_are_said() -> None:
    assert troubles(picture({"backlog 0": "backlog 0\ncachesvc_changes_lost_total 3"})) == [
        "3 changes were taken out of a region's queue by somebody else since its instances started: "
        "everything was fenced"
    ]


def test_settings_that_break_the_rule_come_before_those_that_cost_and_are_said_once() -> None:
    settings = [
        Unmet("queue eu", "persistence", "cost", "appendonly is no: a restart loses changes"),
        Unmet("cell c1", "eviction", "stale", "maxmemory-policy is allkeys-lru: a fence may be evicted"),
        Unmet("cell c1", "clock", "stale", "its clock is +80 ms off that of this instance"),
    ]
    ready = Ready(True, {"eu": "read"}, settings=settings)
    seen = picture(
        {"requests_shed_total 0": "requests_shed_total 60"}, ready, {"eu-b": scrape(12.0, ready=ready)}
    )
    assert troubles(seen) == [
        "cell c1: maxmemory-policy is allkeys-lru: a fence may be evicted",
        "eu-a is shedding (30 requests a second refused)",
        "queue eu: appendonly is no: a restart loses changes",
    ]
