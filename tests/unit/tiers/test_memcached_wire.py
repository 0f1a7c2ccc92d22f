"""Commands to memcached and its answers, tested without a memcached."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymemcache.exceptions import MemcacheError

from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.l2.memcached import LARGEST_ITEM, expiry_of, set_command, wire_name
from cachesvc.tiers.l2.memcached_client import PipelinedClient, is_refusal

NOW = 1_700_000_000 * SECONDS
DAY = 86_400


class ScriptedSocket:
    """Gives the chunks of an answer one by one, then end of file; records what was sent."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, seconds: float | None) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


def client_on(*chunks: bytes) -> PipelinedClient:
    client = PipelinedClient("127.0.0.1:1")
    client.sock = ScriptedSocket(*chunks)
    client._arrivals = lambda: False
    return client


def in_chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % len(data) for cut in cuts} - {0}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


TRICKY = [b"", b"END\r\n", b"x\r\nEND\r\n", b"VALUE k 0 1\r\nx\r\nEND\r\n", b"\r\n", b"\r", b"plain" * 40]


@given(
    st.dictionaries(st.sampled_from([b"a", b"b", b"key"]), st.sampled_from(TRICKY)),
    st.lists(st.integers(0, 2000)),
)
def test_values_are_read_whole_however_the_answer_is_cut(held: dict[bytes, bytes], cuts: list[int]) -> None:
    answer = (
        b"".join(b"VALUE %b 0 %d\r\n%b\r\n" % (name, len(value), value) for name, value in held.items())
        + b"END\r\n"
    )
    assert client_on(*in_chunks(answer, cuts)).fetch([b"a", b"b", b"key"]) == held


@given(
    st.lists(st.sampled_from([b"STORED", b"SERVER_ERROR object too large for cache"]), min_size=1),
    st.lists(st.integers(0, 999)),
)
def test_replies_are_matched_with_commands_however_they_are_cut(
    replies: list[bytes], cuts: list[int]
) -> None:
    answer = b"\r\n".join([*replies, b""])
    assert client_on(*in_chunks(answer, cuts)).exchange([b"command\r\n"] * len(replies)) == replies


def test_a_batch_is_one_get() -> None:
    client = client_on(b"END\r\n")
    client.fetch([b"a", b"b"])
    assert client.sock.sent == b"get a b\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"ERROR\r\n",
        b"SERVER_ERROR out of memory\r\n",
        b"VALUE a 0 9\r\nshort",
        b"END\r\nEND\r\n",
        b"VALUE a 0 x\r\n\r\nEND\r\n",
    ],
)
def test_a_broken_answer_to_a_get_raises(answer: bytes) -> None:
    with pytest.raises((MemcacheError, ValueError)):
        client_on(answer).fetch([b"a"])


@pytest.mark.parametrize(
    "answer",
    [b"STORED\r\n", b"STORED\r\nERROR\r\n", b"STORED\r\nCLIENT_ERROR bad\r\n", b"STORED\r\n\r\n\r\n"],
)
def test_a_broken_answer_to_writes_raises(answer: bytes) -> None:
    with pytest.raises((MemcacheError, ValueError)):
        client_on(answer).exchange([b"one\r\n", b"two\r\n"])


def test_only_a_server_error_is_a_refusal() -> None:
    replies = [b"STORED", b"SERVER_ERROR out of memory storing object", b"DELETED", b"NOT_FOUND"]
    assert [is_refusal(reply) for reply in replies] == [False, True, False, False]


@given(st.text(min_size=1, max_size=300))
def test_every_name_is_legal_and_a_legal_id_is_its_own_name(text: str) -> None:
    key = Key.of("pages", text)
    name = wire_name(key.id)
    assert len(name) <= 250
    assert all(0x21 <= byte <= 0x7E for byte in name)
    assert name == key.id or name.startswith(b"#")


def test_names_are_the_same_in_every_release() -> None:
    long = b"pages/" + b"x" * 250
    assert [wire_name(b"pages/{ws-7}:block:42"), wire_name(b"pages/a b"), wire_name(long)] == [
        b"pages/{ws-7}:block:42",
        b"#5cacd0dcf5ff82774666fd9e7de5ca52",
        b"#fa1a50a380cb23cc02b14c7c097589b6",
    ]


@pytest.mark.parametrize(
    ("left_us", "expected"),
    [
        (-1, None),
        (0, None),
        (1, 1),
        (SECONDS, 1),
        (SECONDS + 1, 2),
        (30 * DAY * SECONDS - SECONDS, 30 * DAY - 1),
        (30 * DAY * SECONDS, 1_700_000_000 + 30 * DAY),
        (30 * DAY * SECONDS + 1, 1_700_000_000 + 30 * DAY + 1),
    ],
)
def test_expiry_is_never_zero_and_beyond_thirty_days_a_date(left_us: int, expected: int | None) -> None:
    assert expiry_of(NOW + left_us, NOW) == expected


@pytest.mark.parametrize(("excess", "is_sent"), [(0, True), (1, False)])
def test_an_item_is_sent_up_to_the_largest_size(excess: int, is_sent: bool) -> None:
    key = Key.of("pages", "k")
    # The length of a value this large takes the same bytes in the envelope, so the rest of it is measured once.
    sample = set_command(key, Entry(bytes(500_000), NOW, NOW + SECONDS), NOW)
    assert sample is not None
    beside = len(key.id) + int(sample.split(b"\r\n")[0].split(b" ")[4]) - 500_000
    command = set_command(key, Entry(bytes(LARGEST_ITEM - beside + excess), NOW, NOW + SECONDS), NOW)
    assert (command is not None) is is_sent


def test_a_server_of_the_gutter_keeps_nothing_longer_than_it_is_told() -> None:
    key = Key.of("docs", "a")
    for seconds, kept in ((60, 10), (7, 7)):
        entry = Entry(b"v", NOW, NOW + seconds * SECONDS)
        command = set_command(key, entry, NOW, longest_us=10 * SECONDS)
        assert command is not None
        assert command.startswith(b"set %b 0 %d " % (wire_name(key.id), kept))
