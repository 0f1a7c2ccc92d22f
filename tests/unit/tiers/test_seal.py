"""The seal: a copy is taken only if a holder of a secret wrote it for that very key."""

import itertools
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.model.entry import Entry, Key
from cachesvc.tiers import envelope, seal
from cachesvc.tiers.seal import MAGIC, SEAL_BYTES, Seal
from tests.unit.tiers.test_envelope import ABSENT, PLAIN, WHOLE, entries_of

SNAPSHOTS = Path(__file__).parents[2] / "snapshots"
KEY = Key.of("pages", "{ws-7}:block:42")
OTHER_KEYS = [Key.of("pages", text) for text in ("{ws-7}:block:43", "{ws-8}:block:42", "{ws-7}:block:4")]
OLD, NEW, FOREIGN = (bytes(range(start, start + 32)) for start in (0, 32, 64))
RELEASED = {"envelope-2-plain.bin": PLAIN, "envelope-2-whole.bin": WHOLE, "envelope-2-absent.bin": ABSENT}
"""Envelopes that OLD has sealed."""


@pytest.mark.parametrize(("name", "entry"), RELEASED.items())
def test_bytes_of_a_release_are_read_and_written_by_todays_code(name: str, entry: Entry) -> None:
    held = (SNAPSHOTS / name).read_bytes()
    assert Seal([OLD]).unpack(KEY, held) == entry
    assert Seal([OLD]).pack(KEY, entry) == held


def test_the_seal_is_the_keyed_blake2b_of_all_bytes_before_it() -> None:
    held = Seal([OLD]).pack(KEY, WHOLE)
    whole = blake2b(held[:-16], key=OLD, digest_size=16, person=b"cachesvc l2")
    assert held[-16:] == whole.digest()
    assert msgspec.msgpack.decode(held[2:-16])[0] == KEY.id


@given(entries_of("pages"))
def test_an_entry_survives_its_seal(entry: Entry) -> None:
    sealed = Seal([OLD])
    assert sealed.unpack(KEY, sealed.pack(KEY, entry)) == entry


@pytest.mark.parametrize("entry", RELEASED.values(), ids=RELEASED)
def test_every_bit_that_flips_makes_a_miss(entry: Entry) -> None:
    sealed = Seal([OLD, NEW])
    whole = sealed.pack(KEY, entry)
    for at, bit in itertools.product(range(len(whole)), range(8)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << bit
        assert sealed.unpack(KEY, bytes(flipped)) is None, (at, bit)


def test_a_copy_that_is_cut_or_has_grown_is_a_miss() -> None:
    sealed = Seal([OLD])
    whole = sealed.pack(KEY, WHOLE)
    for end in range(len(whole)):
        assert sealed.unpack(KEY, whole[:end]) is None, end
    assert sealed.unpack(KEY, whole + b"\0") is None
    assert sealed.unpack(KEY, whole[:-SEAL_BYTES] + b"\0" + whole[-SEAL_BYTES:]) is None


@pytest.mark.parametrize("other", OTHER_KEYS, ids=lambda key: key.text)
def test_a_copy_of_another_key_is_a_miss(other: Key) -> None:
    sealed = Seal([OLD])
    assert sealed.unpack(other, sealed.pack(KEY, WHOLE)) is None
    # A copy that says the other id needs another seal.
    renamed = sealed.pack(other, WHOLE)[:-SEAL_BYTES] + sealed.pack(KEY, WHOLE)[-SEAL_BYTES:]
    assert sealed.unpack(other, renamed) is None


def test_sealed_and_unsealed_copies_are_misses_of_each_other() -> None:
    sealed = Seal([OLD])
    assert sealed.unpack(KEY, envelope.pack(KEY, WHOLE)) is None
    assert envelope.unpack(KEY, sealed.pack(KEY, WHOLE)) is None
    assert not envelope.is_damaged(sealed.pack(KEY, WHOLE))
    # The checksum is no secret: an unsealed envelope under the sealed version has no seal.
    assert sealed.unpack(KEY, MAGIC + envelope.pack(KEY, WHOLE)[2:]) is None


def test_a_key_is_replaced_while_both_are_valid() -> None:
    before, between, turned, after = Seal([OLD]), Seal([OLD, NEW]), Seal([NEW, OLD]), Seal([NEW])
    of_old, of_new = before.pack(KEY, PLAIN), after.pack(KEY, PLAIN)
    assert (between.pack(KEY, PLAIN), turned.pack(KEY, PLAIN)) == (of_old, of_new)
    taken = {
        (name, age): reader.unpack(KEY, copy) == PLAIN
        for name, reader in {"before": before, "between": between, "turned": turned, "after": after}.items()
        for age, copy in {"old": of_old, "new": of_new}.items()
    }
    assert [place for place, is_taken in taken.items() if not is_taken] == [
        ("before", "new"),
        ("after", "old"),
    ]
    assert turned.unpack(KEY, Seal([FOREIGN]).pack(KEY, PLAIN)) is None


def test_nothing_is_decoded_before_its_seal_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(key: Key, body: memoryview) -> Entry | None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(seal, "decoded", decode)
    sealed = Seal([OLD])
    assert sealed.unpack(KEY, Seal([FOREIGN]).pack(KEY, WHOLE)) is None
    with pytest.raises(AssertionError, match="it was decoded"):
        sealed.unpack(KEY, sealed.pack(KEY, WHOLE))


SEEN = [
    sealed.pack(key, entry)
    for sealed in (Seal([OLD]), Seal([NEW]))
    for key in (KEY, *OTHER_KEYS)
    for entry in (PLAIN, WHOLE)
]
"""Copies that somebody who reads and writes memcached has seen."""
PIECES = st.builds(
    lambda copy, start, end: copy[start:end],
    st.sampled_from([*SEEN, envelope.pack(KEY, WHOLE), MAGIC]),
    st.integers(0, 400),
    st.integers(0, 400) | st.none(),
)


@given(st.lists(PIECES | st.binary(max_size=40), max_size=4).map(b"".join))
def test_whatever_is_made_of_seen_copies_only_a_whole_one_is_taken(made: bytes) -> None:
    found = Seal([NEW, OLD]).unpack(KEY, made)
    assert found is None or (made in SEEN and found in (PLAIN, WHOLE))


def test_fields_appended_by_a_later_release_are_ignored() -> None:
    fields = msgspec.msgpack.decode(Seal([OLD]).pack(KEY, WHOLE)[2:-SEAL_BYTES])
    longer = MAGIC + msgspec.msgpack.encode([*fields, "new", {"more": [1]}])
    mac = blake2b(longer, key=OLD, digest_size=SEAL_BYTES, person=b"cachesvc l2").digest()
    assert Seal([OLD]).unpack(KEY, longer + mac) == WHOLE


def test_its_repr_tells_no_key() -> None:
    assert repr(Seal([OLD, NEW])) == "<Seal [2 keys]>"
