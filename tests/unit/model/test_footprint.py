"""What an entry is charged: everything that somebody else chose, and the same whenever it is asked."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from cachesvc.model import footprint as module
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.footprint import (
    ENTRY_BYTES,
    INTEGER_BYTES,
    MOST_SHARED,
    TAG_BYTES,
    TAGS_BYTES,
    TEXT_BYTES,
    footprint,
    shared,
    shared_window,
)
from cachesvc.tiers.envelope import pack, unpack

KEY = Key.of("pages", "home")
PLAIN = Entry(b"0123456789", 1, 2)


@pytest.fixture(autouse=True)
def _tables() -> Iterator[None]:
    """The tables of shared values, as they were before."""
    texts, windows = dict(module._texts), dict(module._windows)
    yield
    for table, before in ((module._texts, texts), (module._windows, windows)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]  # each table has its own kind of values


def unshared(text: str) -> str:
    """An object of its own."""
    return "".join(text)[:-1] + text[-1]


def test_an_entry_is_charged_its_key_its_value_and_what_every_entry_has() -> None:
    assert footprint(b"ns/key", PLAIN) == 6 + 10 + ENTRY_BYTES


@pytest.mark.parametrize(
    ("chosen", "bytes_"),
    [
        ({"content_type": "text/x-" + "y" * 93}, TEXT_BYTES + 100),
        ({"origin_etag": '"' + "y" * 98 + '"'}, TEXT_BYTES + 100),
        ({"content_type": "é" * 100}, TEXT_BYTES + 800),
        ({"stale_for": 60_000_000}, INTEGER_BYTES),
        ({"error_for": 60_000_000}, INTEGER_BYTES),
        ({"load_ms": 257}, INTEGER_BYTES),
        ({"stale_for": 256, "error_for": 0, "load_ms": 256}, 0),
        (
            {"tags": ("menu", "user"), "tag_digests": tag_digests_of("pages", ("menu", "user"))},
            TAGS_BYTES + 2 * TAG_BYTES + 8,
        ),
    ],
)
def test_what_others_chose_is_charged(chosen: dict[str, object], bytes_: int) -> None:
    assert footprint(b"", replace(PLAIN, **chosen)) == 10 + ENTRY_BYTES + bytes_


def test_what_all_entries_share_is_charged_to_none() -> None:
    chosen = replace(
        PLAIN,
        content_type=shared(unshared("text/x-ours")),
        stale_for=shared_window(10**9),
        error_for=shared_window(10**10),
    )
    assert footprint(b"", chosen) == 10 + ENTRY_BYTES
    found = unpack(KEY, pack(KEY, chosen))
    assert found is not None
    assert footprint(b"", found) == 10 + ENTRY_BYTES


def test_what_is_shared_is_bounded_and_the_rest_is_charged() -> None:
    for number in range(2 * MOST_SHARED):
        made = replace(PLAIN, content_type=f"text/x-{number:08}", stale_for=10**9 + number)
        found = unpack(KEY, pack(KEY, made))
        assert found is not None
        charged_later = footprint(b"", found) - 10 - ENTRY_BYTES
        is_shared = found.content_type in module._texts
        assert charged_later == (0 if is_shared else TEXT_BYTES + 15) + (
            0 if found.stale_for in module._windows else INTEGER_BYTES
        )
    assert len(module._texts) == len(module._windows) == MOST_SHARED


def test_the_charge_stays_the_same_while_others_come_and_go() -> None:
    """Else the sum of the charges would drift from what is held."""
    alone = replace(PLAIN, content_type=unshared("text/x-alone"))
    before = footprint(b"", alone)
    shared(unshared("text/x-alone"))
    for number in range(2 * MOST_SHARED):
        shared(f"text/x-{number}")
    assert footprint(b"", alone) == before
