"""`trace.py`: what is read from and written to `traceparent`, and what runs under a span."""

import pytest

from cachesvc.telemetry.traces.trace import SpanContext, current, span, traceparent, under
from tests.doubles.spans import Recording, unsampled

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class TestTraceparent:
    def test_what_is_read_is_written_again(self) -> None:
        context = SpanContext.parse(GIVEN)
        assert context == SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, True)
        assert str(context) == GIVEN

    @pytest.mark.parametrize(
        ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
    )
    def test_of_the_flags_only_the_lowest_is_known(self, flags: str, sampled: bool) -> None:
        context = SpanContext.parse(GIVEN[:-2] + flags)
        assert context is not None
        assert context.sampled is sampled

    def test_a_later_version_may_say_more(self) -> None:
        assert SpanContext.parse("01" + GIVEN[2:] + "-more") == SpanContext.parse(GIVEN)

    @pytest.mark.parametrize(
        "malformed",
        [
            "",
            "00",
            GIVEN[:-1],
            GIVEN + "0",
            GIVEN + "-more",
            GIVEN.upper(),
            "ff" + GIVEN[2:],
            GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
            GIVEN.replace("00f067aa0ba902b7", "0" * 16),
            GIVEN.replace("-", "_"),
            f" {GIVEN}",
            f"{GIVEN}\n",
            "01" + GIVEN[2:] + "-" + "x" * 1000,
            "€" * 55,
        ],
    )
    def test_what_is_malformed_is_none(self, malformed: str) -> None:
        assert SpanContext.parse(malformed) is None


class TestWhatRunsUnderASpan:
    def test_without_one_nothing_is_recorded_or_handed_on(self) -> None:
        with span("anything") as begun:
            assert begun is None
            assert current() is None
        assert traceparent() == ""

    def test_an_unsampled_one_is_handed_on_and_records_nothing(self) -> None:
        passing = unsampled()
        with under(passing), span("anything") as begun:
            assert begun is None
            assert traceparent() == str(passing.context)
            assert traceparent().endswith("-00")

    def test_children_stand_under_their_parents(self) -> None:
        recording = Recording()
        root = recording.root()
        with under(root), span("load") as outer:
            assert outer is current()
            with span("GET", "client", {"server.address": "o"}):
                assert current() is not outer
            assert current() is outer
        assert current() is None
        assert recording.tree(root) == "cache.get\n  load\n    GET"
        assert recording.named("GET").attributes == {"server.address": "o"}

    def test_a_failure_is_an_error_of_its_class_and_passes_through(self) -> None:
        recording = Recording()
        with pytest.raises(TimeoutError), under(recording.root()), span("load"):
            raise TimeoutError
        assert recording.named("load").error == "TimeoutError"
        assert current() is None

    def test_a_child_lies_within_its_parents_time(self) -> None:
        recording = Recording()
        root = recording.root()
        with under(root), span("load"):
            pass
        root.end()
        child = recording.named("load")
        assert root.started_ns <= child.started_ns <= child.ended_ns <= root.ended_ns
