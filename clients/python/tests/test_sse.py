"""The parser makes the same events of the same bytes, however they are cut."""

import pytest
from cachesvc_client.protocol import sse
from cachesvc_client.protocol.sse import ServerEvent, SseError, SseParser

STREAM = (
    b"event: fences\nid: eu=1-0\ndata: {}\n\n: a comment\n\n"
    b"event: reset\r\ndata: a\r\ndata: b\r\n\r\ndata:x\rid: 7\r\r"
)
EVENTS = [
    ServerEvent("fences", b"{}", "eu=1-0"),
    ServerEvent("reset", b"a\nb", "eu=1-0"),
    ServerEvent("message", b"x", "7"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_the_cuts_between_pieces_make_no_difference(size: int) -> None:
    parser = SseParser()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_an_event_without_data_is_none_but_moves_the_id() -> None:
    parser = SseParser("before")
    assert parser.feed(b"event: x\nid: after\n\n") == []
    assert parser.feed(b"data: y\n\n") == [ServerEvent("message", b"y", "after")]


def test_an_unfinished_event_is_not_told() -> None:
    parser = SseParser()
    assert parser.feed(b"event: fences\ndata: {}\n") == []
    assert parser.feed(b"\n") == [ServerEvent("fences", b"{}", "")]


def test_a_byte_order_mark_a_field_without_colon_an_id_with_nul_and_a_retry() -> None:
    parser = SseParser()
    assert parser.feed(b"\xef\xbb\xbfdata: a\nid: x\0\ndata\nother: z\nretry: 1500\n\n") == [
        ServerEvent("message", b"a\n", "")
    ]
    assert parser.retry_seconds == 1.5


def test_an_event_of_many_mib_in_many_pieces() -> None:
    parser = SseParser()
    parser.feed(b"data: ")
    for _ in range(160):
        assert parser.feed(b"x" * (1 << 16)) == []
    (event,) = parser.feed(b"\n\n")
    assert event.data == b"x" * (10 << 20)


def test_what_never_ends_is_no_stream_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    parser = SseParser()
    parser.feed(b"data: " + b"x" * 900 + b"\n")
    with pytest.raises(SseError, match="an event of more"):
        parser.feed(b"data: " + b"x" * 900)


def test_short_events_do_not_add_up_to_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    parser = SseParser()
    assert len(parser.feed(b"data: 1234567890\n\n" * 50)) == 50
