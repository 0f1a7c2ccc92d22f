"""From the metrics of instances to the figures of a namespace."""

import pytest

from cachesvc.cli import main
from cachesvc.commands.report import command
from cachesvc.commands.report.figures import Change, figures_of
from cachesvc.commands.top.exposition import Exposition

KNOWN = 'max_lag_seconds{namespace="%s"} 2'
REQUESTS = 'requests_total{namespace="pages",operation="%s",outcome="%s"} %d'
KEYS = 'batch_keys_total{namespace="pages",operation="get_many",outcome="%s"} %d'
BEYOND = 'answers_beyond_l1_total{namespace="pages",by="%s"} %d'
REFUSED = 'copies_refused_total{namespace="pages",reason="%s"} %d'
MISSES = 'ttl_misses_total{namespace="pages",ttl="%s"} %d'
DIFFERING = 'ttl_misses_keys{namespace="pages",ttl="%s"} %d'
VARIANCE = 'ttl_misses_variance{namespace="pages",ttl="%s"} %d'


def exposition(*lines: str) -> Exposition:
    return Exposition.parse("".join(f"cachesvc_{line}\n" for line in (KNOWN % "pages", *lines)))


def test_reads_are_shared_out_by_who_answered_and_l1_has_the_rest() -> None:
    one = exposition(
        REQUESTS % ("get", "hit", 50),
        REQUESTS % ("head", "miss", 10),
        REQUESTS % ("get", "failed", 7),
        REQUESTS % ("put", "stored", 9),
        KEYS % ("hit", 20),
        KEYS % ("error", 5),
        BEYOND % ("l2", 20),
        BEYOND % ("miss", 10),
        BEYOND % ("error", 12),
    )
    other = exposition(KEYS % ("loaded", 20), BEYOND % ("origin", 20))
    (found,) = figures_of([one, other])
    assert (found.namespace, found.reads, found.hit_ratio) == ("pages", 100, 0.7)
    assert found.answered_by == {"l1": 0.5, "l2": 0.2, "l3": 0.0, "origin": 0.2, "miss": 0.1}


def test_loads_are_those_of_the_origin_or_the_misses_of_callers_that_load() -> None:
    reads = (KEYS % ("hit", 100), KEYS % ("miss", 20), BEYOND % ("miss", 20))
    (aside,) = figures_of([exposition(*reads)])
    assert (aside.loads, aside.loads_avoided) == (20, 100)
    loads = 'origin_load_duration_seconds_count{namespace="pages"} 30'
    (through,) = figures_of([exposition(*reads, loads), exposition(loads)])
    assert (through.loads, through.loads_avoided) == (60, 60)


def test_another_ttl_is_told_with_its_error_if_enough_keys_differ() -> None:
    lines = (
        KEYS % ("hit", 10_000),
        DIFFERING % ("half", 50),
        DIFFERING % ("twice", 50),
        MISSES % ("half", 900),
        MISSES % ("same", 500),
        MISSES % ("twice", 300),
        VARIANCE % ("half", 2500),
        VARIANCE % ("twice", 100),
    )
    (found,) = figures_of([exposition(*lines)])
    assert found.half_ttl == Change(-0.04, 0.01)
    assert found.twice_ttl == Change(0.02, 0.002)
    (two,) = figures_of([exposition(*lines)] * 2)
    assert two.half_ttl is not None
    assert two.half_ttl.points == -0.04
    assert two.half_ttl.error == pytest.approx(0.01 / 2**0.5)
    few = [line.replace('half"} 50', 'half"} 49') for line in lines]
    assert figures_of([exposition(*few)])[0].half_ttl is None
    assert figures_of([exposition(*few)])[0].twice_ttl is not None


def test_refusals_stand_in_the_order_of_their_numbers_and_nothing_is_made_up() -> None:
    (found,) = figures_of([exposition(REFUSED % ("tag", 2), REFUSED % ("key", 5))])
    assert list(found.refusals.items()) == [("key", 5), ("tag", 2)]
    assert (found.hit_ratio, found.never_read, found.half_ttl, found.reads) == (None, None, None, 0)
    parts = ('copies_new_total{namespace="pages"} 640', 'copies_never_read_total{namespace="pages"} 64')
    assert figures_of([exposition(*parts)])[0].never_read == 0.1


def test_all_namespaces_are_told_of_by_name() -> None:
    assert [one.namespace for one in figures_of([exposition(KNOWN % "docs")])] == ["docs", "pages"]


def test_an_instance_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "namespaces", "--url", "http://127.0.0.1:1"], {}) == 1
    assert "no instance answers: http://127.0.0.1:1: connection refused" in capsys.readouterr().err


def test_the_table_has_a_row_for_each_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (KEYS % ("hit", 1000), DIFFERING % ("half", 50), MISSES % ("half", 90), MISSES % ("same", 50))
    figures = figures_of([exposition(*lines, VARIANCE % ("half", 25), KNOWN % "docs")])
    command._print(command.Report(["a"], {"b": "no answer"}, "how", figures))
    text = capsys.readouterr().out
    assert "b does not answer (no answer)" in text
    assert "-4.0 ± 1.0 points" in text
    assert text.count("docs") == 2
