"""The envelope: what was stored by any release is read by this one, and nothing else is taken for it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.tiers import envelope
from cachesvc.tiers.envelope import MAGIC, is_damaged, pack, unpack

SNAPSHOTS = Path(__file__).parents[2] / "snapshots"
KEY = Key.of("pages", "{ws-7}:block:42")
TAGS = ("ws-7", "étiquette")

PLAIN = Entry(
    b"<p>hello</p>", as_of=1_700_000_000_000_001, fresh_until=1_700_000_300_000_000, content_type="text/html"
)
WHOLE = Entry(
    bytes(range(256)),
    as_of=1_700_000_000_000_001,
    fresh_until=1_700_000_300_000_000,
    stale_for=60_000_000,
    error_for=600_000_000,
    load_ms=17,
    content_type="application/json",
    tags=TAGS,
    tag_digests=tag_digests_of("pages", TAGS),
    origin_etag='W/"abc"',
)
ABSENT = Entry(b"", as_of=1_700_000_000_000_001, fresh_until=1_700_000_010_000_000, negative=True)
RELEASED = {"envelope-1-plain.bin": PLAIN, "envelope-1-whole.bin": WHOLE, "envelope-1-absent.bin": ABSENT}
CHECKED = {name.replace(".bin", "-checked.bin"): entry for name, entry in RELEASED.items()}
"""Envelopes with a checksum."""

TIMES = st.integers(0, envelope.LATEST)
TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), max_size=40)
TAG_LISTS = st.lists(st.text(min_size=1, max_size=40), max_size=5).map(tuple)
ETAGS = st.just("") | TEXTS.map(lambda text: '"' + text.replace('"', "") + '"')


def entries_of(namespace: str) -> st.SearchStrategy[Entry]:
    return st.builds(
        lambda tags, **fields: Entry(tags=tags, tag_digests=tag_digests_of(namespace, tags), **fields),
        tags=TAG_LISTS,
        value=st.binary(max_size=300),
        as_of=TIMES,
        fresh_until=TIMES,
        stale_for=TIMES,
        error_for=TIMES,
        load_ms=st.integers(0, 10_000),
        content_type=TEXTS,
        negative=st.booleans(),
        origin_etag=ETAGS,
    )


@pytest.mark.parametrize(("name", "entry"), (RELEASED | CHECKED).items())
def test_bytes_of_a_release_are_read_by_todays_code(name: str, entry: Entry) -> None:
    assert unpack(KEY, (SNAPSHOTS / name).read_bytes()) == entry


@pytest.mark.parametrize(("name", "entry"), CHECKED.items())
def test_todays_bytes_are_those_of_the_release(name: str, entry: Entry) -> None:
    """Changing them means other instances read something else: append a field, or raise the version in `MAGIC`."""
    assert pack(KEY, entry) == (SNAPSHOTS / name).read_bytes()


@given(entries_of("pages"))
def test_an_entry_survives_the_envelope(entry: Entry) -> None:
    assert unpack(KEY, pack(KEY, entry)) == entry


OUT_OF_BOUNDS = [
    {"tags": tuple(str(number) for number in range(60_000))},
    {"tags": ("x" * 257,)},
    {"tags": ("",)},
    {"content_type": "text/html\r\nSet-Cookie: a=b"},
    {"content_type": "x" * 257},
    {"origin_etag": '"a"\r\nHost: other'},
    {"as_of": -1},
    {"as_of": 1 << 62},
    {"fresh_until": -(1 << 62)},
    {"stale_for": -1},
    {"error_for": 1 << 62},
    {"load_ms": -1},
]


@pytest.mark.parametrize("fields", OUT_OF_BOUNDS, ids=range(len(OUT_OF_BOUNDS)))
def test_fields_that_no_release_writes_are_a_miss_and_counted(fields: dict[str, Any]) -> None:
    """Whoever can write to a memcached can write an envelope with the right checksum."""
    forged = pack(KEY, msgspec.structs.replace(WHOLE, **fields))
    assert unpack(KEY, forged) is None
    assert is_damaged(forged)


@given(st.binary(max_size=300))
def test_garbage_behind_the_mark_is_a_miss(data: bytes) -> None:
    assert unpack(KEY, MAGIC + data) is None
    assert unpack(KEY, data) is None


def test_another_keys_value_is_a_miss() -> None:
    assert unpack(Key.of("pages", "{ws-7}:block:43"), pack(KEY, PLAIN)) is None


def test_another_version_is_a_miss() -> None:
    other = MAGIC[:1] + b"\x02" + pack(KEY, PLAIN)[2:]
    assert unpack(KEY, other) is None
    assert not is_damaged(other)


@pytest.mark.parametrize("entry", CHECKED.values(), ids=CHECKED)
def test_every_bit_that_flips_is_found(entry: Entry) -> None:
    whole = pack(KEY, entry)
    assert not is_damaged(whole)
    for at in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[at] ^= 1 << bit
            assert unpack(KEY, bytes(flipped)) is None, (at, bit)
            assert is_damaged(bytes(flipped)) == (at >= len(MAGIC)), (at, bit)


def test_an_envelope_of_another_key_is_not_damaged() -> None:
    other = pack(Key.of("pages", "other"), PLAIN)
    assert unpack(KEY, other) is None
    assert not is_damaged(other)


def test_fields_appended_by_a_later_release_are_ignored() -> None:
    fields = msgspec.msgpack.decode(pack(KEY, WHOLE)[2:])
    assert unpack(KEY, MAGIC + msgspec.msgpack.encode([*fields, "new", {"more": [1]}])) == WHOLE


def test_fields_that_an_earlier_release_did_not_know_take_their_defaults() -> None:
    fields = msgspec.msgpack.decode(pack(KEY, WHOLE)[2:])
    assert unpack(KEY, MAGIC + msgspec.msgpack.encode(fields[:10])) == msgspec.structs.replace(
        WHOLE, origin_etag=""
    )


@given(st.binary(max_size=200))
def test_garbage_is_a_miss_and_never_raises(data: bytes) -> None:
    assert unpack(KEY, data) is None
    assert unpack(KEY, MAGIC + data) is None


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_envelope_never_raises(at: int, byte: int) -> None:
    data = bytearray(pack(KEY, WHOLE))
    data[at % len(data)] = byte
    found = unpack(KEY, bytes(data))
    assert found is None or isinstance(found, Entry)
    assert unpack(KEY, bytes(data[: at % len(data)])) is None


def test_deep_nesting_is_a_miss_and_not_a_crash() -> None:
    assert unpack(KEY, MAGIC + b"\x91" * 100_000) is None
    body = pack(KEY, PLAIN)[2:]
    assert unpack(KEY, MAGIC + bytes([body[0] + 1]) + body[1:] + b"\x91" * 100_000) is None


def test_content_types_and_windows_are_shared_between_entries() -> None:
    first, second = (unpack(KEY, pack(KEY, WHOLE)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.content_type is second.content_type
    assert first.stale_for is second.stale_for
    assert first.error_for is second.error_for
