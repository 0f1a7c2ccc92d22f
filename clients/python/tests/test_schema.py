"""A schema version travels with the value, and a reader takes its own only."""

from typing import Any

import pytest
from cachesvc_client.values.codecs import BYTES, JSON, Schema, UnreadableError, json_of


@pytest.mark.parametrize(
    "spelled", ["application/json; v=3", "application/json;v=3", "application/json; charset=utf-8; v=3"]
)
def test_a_reader_of_a_version_takes_it_however_it_is_spelled(spelled: str) -> None:
    assert Schema(JSON, 3).content_type == "application/json; v=3"
    assert Schema(JSON, 3).decode(b"1", spelled) == 1


@pytest.mark.parametrize(
    ("mine", "stored", "newer"),
    [
        (0, "application/json; v=1", True),
        (2, "application/json; v=3", True),
        (3, "application/json; v=2", False),
        (3, "application/json", False),
        (3, "application/json; version=3", False),
        (3, "application/json; v=3a", False),
    ],
)
def test_another_version_is_unreadable_and_says_whether_it_is_newer(
    mine: int, stored: str, newer: bool
) -> None:
    with pytest.raises(UnreadableError) as caught:
        Schema(JSON, mine).decode(b"1", stored)
    assert caught.value.newer is newer


@pytest.mark.parametrize(
    "stored", ["application/octet-stream", "application/json", "text/plain; charset=utf-8"]
)
def test_without_versions_the_media_type_is_not_compared(stored: str) -> None:
    assert Schema(JSON).decode(b"1", stored) == 1


def test_what_does_not_decode_is_unreadable_and_not_newer() -> None:
    with pytest.raises(UnreadableError, match="does not fit the namespace's codec") as caught:
        Schema(json_of(int)).decode(b'"x"', "application/json")
    assert not caught.value.newer


class Labelled:
    def __init__(self, content_type: str) -> None:
        self.content_type = content_type

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, value: bytes) -> bytes:
        return value


@pytest.mark.parametrize(
    ("codec", "version", "message"),
    [
        (BYTES, -1, "version: -1"),
        (BYTES, True, "version: True"),
        (BYTES, 1_000_000_000, "version: 1000000000"),
        (Labelled("json"), 0, "no media type"),
        (Labelled("a/b\r\nx: y"), 0, "no media type"),
        (Labelled("a/" + "b" * 240), 0, "no media type"),
        (Labelled("a/b; v=2"), 0, "say version= instead"),
    ],
)
def test_a_codec_or_a_version_that_cannot_travel_is_refused(codec: Any, version: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schema(codec, version)
