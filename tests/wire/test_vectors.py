"""The service computes what the vectors of clients/conformance say: what it and every SDK have to agree on to the bit."""

from collections.abc import Callable
from typing import Any

import pytest

from cachesvc.coherence.fences import Fences
from cachesvc.coherence.paced_fences import PacedFences
from cachesvc.model import cache_groups
from cachesvc.model.digest import digest
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import RequestError
from cachesvc.model.etag import etag
from cachesvc.model.fence import Fence
from cachesvc.model.key_text import check_key
from cachesvc.model.units import Duration
from cachesvc.tiers.l2.ring import Ring
from cachesvc.web.requests.tokens import read_token, write_token
from cachesvc.web.routing import place_of
from clients.conformance.case_format import vectors
from tests.doubles.clocks import ManualClock


def digest_of(target: str) -> str:
    return f"{digest(target.encode()):016x}"


def token(pairs: list[tuple[str, int]]) -> str:
    return write_token(tuple((digest(target.encode()), at) for target, at in pairs))


def token_pairs(text: str) -> list[list[Any]]:
    return [[f"{key:016x}", at] for key, at in read_token(text, "token")]


def duration(text: str) -> int:
    return int(Duration.parse(text))


def paced_moment(given: dict[str, Any]) -> int:
    """The first moment at which the copy is due, from either side."""
    fences, key, at = PacedFences(0), digest(given["key"].encode()), given["at"]
    fences.merge(key, at, given["over"], at)
    due = [
        moment for moment in (expected(given) - 1, expected(given)) if fences.is_due(at, key, [key], moment)
    ]
    return due[0] if due else -1


def expected(given: dict[str, Any]) -> int:
    return next(int(vector.expect) for vector in vectors("paced_moment") if vector.given == given)


def ring_order(given: dict[str, Any]) -> list[str]:
    """Whom the key falls to when those before are gone: that is what an order of preference is."""
    left, order = dict.fromkeys(given["instances"], 1.0), []
    while left:
        order.append(Ring(left).server(digest(given["key"].encode())))
        del left[order[-1]]
    return order


def path(key: str) -> str:
    """The segment, if the service reads it as this key."""
    segment = next(str(vector.expect) for vector in vectors("path") if vector.given == key)
    return segment if place_of(f"/v1/pages/{segment}", lambda *_: None).key == Key.of("pages", key) else ""


def may_be_a_key(text: str) -> bool:
    return _accepts(check_key, text)


def may_be_a_tag(text: str) -> bool:
    return _accepts(cache_groups.check_tag, text)


def _accepts(check: Any, text: str) -> bool:
    try:
        check(text)
    except ValueError:
        return False
    return True


def admits(given: dict[str, Any]) -> str:
    start = 1_700_000_000_000_000
    clock = ManualClock(start)
    fences = Fences(clock, 100_000, 1 << 10, ["here"], 20_000_000)
    key = digest(given["key"].encode())
    for soft, name in ((False, "hard"), (True, "soft")):
        fences.merge([Fence(key, start + given[name], soft)] if name in given else [])
    fences.merge([Fence(key, start + at, over=over) for at, over in given.get("paced", [])])
    if "floor" in given:
        fences.raise_floor(start + given["floor"])
    entry, now = Entry(b"", start + given["as_of"], start + 10**9), start + given["now"]
    if not fences.admits(entry, key, "pages", now):
        return "gone"
    return "stale" if fences.is_soft_fenced(entry, key, "pages", now) else "fresh"


def etag_of(given: dict[str, str]) -> str:
    return etag(Entry(given["value"].encode(), 0, 0, content_type=given["content_type"]))


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "digest": digest_of,
    "token": token,
    "token_pairs": token_pairs,
    "duration": duration,
    "paced_moment": paced_moment,
    "ring_order": ring_order,
    "path": path,
    "key": may_be_a_key,
    "tag": may_be_a_tag,
    "cache_groups": cache_groups.format,
    "etag": etag_of,
    "admits": admits,
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in FUNCTIONS for i in range(len(vectors(name)))]
)
def test_the_service_computes_what_the_vector_says(name: str, number: int) -> None:
    vector = vectors(name)[number]
    if vector.expect is None:
        with pytest.raises((ValueError, RequestError)):
            FUNCTIONS[name](vector.given)
    else:
        assert FUNCTIONS[name](vector.given) == vector.expect, vector.note
