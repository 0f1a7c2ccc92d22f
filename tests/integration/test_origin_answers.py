"""The answers of a real HTTP origin as readers get them, and what becomes of the copy before them.

Real sockets, the service's own loader and read path; the tiers are in memory.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cachesvc.config.topology import Origin
from cachesvc.model.entry import Key
from cachesvc.model.requests import Answer, ReadOptions
from cachesvc.tiers.origin.http import HttpLoader
from tests.doubles.raw_origin import RawOrigin, http, raw_origin
from tests.paths.world import FarSide, Instance

FRESH = ReadOptions(no_cache=True)
LATER = "Retry-After: 17"
OLD = http(200, b"old", "Cache-Control: max-age=60, stale-if-error=60")
EXPIRED_OLD = http(200, b"old", "Cache-Control: max-age=0, stale-while-revalidate=0, stale-if-error=60")


@pytest.fixture
async def raw() -> AsyncIterator[RawOrigin]:
    async with raw_origin() as origin:
        yield origin


@pytest.fixture
async def here(raw: RawOrigin) -> AsyncIterator[Instance]:
    far = FarSide()
    loader = HttpLoader("docs", Origin(f"{raw.url}/{{key}}"), clock=far.clock)
    far.loader = loader  # type: ignore[assignment]  # a real one in the place of the script
    await loader.start()
    yield Instance(far)
    await loader.stop()


def told(answer: Answer) -> tuple[object, ...]:
    """The outcome with the value, or the problem with its `Retry-After`."""
    if answer.error is not None:
        return answer.error.kind.value, answer.error.status, answer.error.retry_after_seconds
    return answer.outcome.value, answer.entry.value if answer.entry is not None else b""


ORIGIN_ANSWERS = [
    ("200", http(200, b"new", "Cache-Control: max-age=60"), ("loaded", b"new"), ("hit", b"new")),
    ("203", http(203, b"new", "Cache-Control: max-age=60"), ("loaded", b"new"), ("hit", b"new")),
    ("204", http(204, length=False), ("loaded", b""), ("hit", b"")),
    ("404", http(404, b"no", "Cache-Control: max-age=60"), ("absent", b""), ("absent", b"")),
    ("410", http(410, b"no", "Cache-Control: max-age=60"), ("absent", b""), ("absent", b"")),
    ("no-store", http(200, b"new", "Cache-Control: no-store"), ("loaded", b"new"), None),
    ("private", http(200, b"new", "Cache-Control: private, max-age=60"), ("loaded", b"new"), None),
    ("Vary: *", http(200, b"new", "Cache-Control: max-age=60", "Vary: *"), ("loaded", b"new"), None),
    ("tags", http(200, b"new", "Cache-Control: max-age=60", 'Cache-Groups: "t'), ("loaded", b"new"), None),
    ("404 no-store", http(404, b"no", "Cache-Control: no-store"), ("absent", b""), None),
    *(
        (str(status), http(status, b"", LATER, "Location: /b"), ("origin-refused", 502, None), None)
        for status in (301, 302, 307, 400, 401, 403, 405, 451, 206)
    ),
]
"""Name, answer of the origin, what the reader is told, and the copy that is left; None: none."""


@pytest.mark.parametrize(
    ("answer", "first", "then"), [row[1:] for row in ORIGIN_ANSWERS], ids=[row[0] for row in ORIGIN_ANSWERS]
)
@pytest.mark.parametrize("old", [OLD, EXPIRED_OLD], ids=["fresh before", "expired before"])
async def test_an_answer_replaces_the_copy_before_it_or_ends_it(
    raw: RawOrigin,
    here: Instance,
    old: bytes,
    answer: bytes,
    first: tuple[object, ...],
    then: tuple[object, ...] | None,
) -> None:
    raw.answer = old
    assert told(await here.get("a")) == ("loaded", b"old")
    raw.answer = answer
    assert told(await here.get("a", options=FRESH)) == first
    raw.answer = http(503, b"", LATER)
    assert told(await here.get("a")) == (then or ("origin-failed", 502, 17))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ("origin-failed", 502, 17)) for status in (500, 502, 503, 504, 599)),
        *((status, ("origin-limited", 503, 17)) for status in (408, 425, 429)),
    ],
)
async def test_a_failure_is_hidden_by_a_stale_copy_and_else_says_when_to_come_again(
    raw: RawOrigin, here: Instance, status: int, kind: tuple[object, ...]
) -> None:
    raw.answer = http(status, b"", LATER)
    assert told(await here.get("b")) == kind
    raw.answer = EXPIRED_OLD
    await here.get("a")
    raw.answer = http(status, b"", LATER)
    assert [told(await here.get("a")) for _ in range(2)] == [("stale", b"old")] * 2


async def test_who_comes_together_is_answered_alone_where_the_origin_says_private(
    raw: RawOrigin, here: Instance
) -> None:
    raw.answer = http(200, b"x", "Cache-Control: private")
    answers = await asyncio.gather(*(here.get("a") for _ in range(5)))
    assert len(raw.requests) == 5
    assert {answer.use.directives for answer in answers} == {"private, max-age=0"}
    assert here.l1.peek(Key.of("docs", "a")) is None


async def test_an_expires_that_is_no_date_has_passed(raw: RawOrigin, here: Instance) -> None:
    windows = "Cache-Control: stale-while-revalidate=0, stale-if-error=0"
    raw.answer = http(200, b"x", windows, "Expires: Sun, 06 Nov 2094 08:49:37 UTC")
    assert [told(await here.get("a")) for _ in range(2)] == [("loaded", b"x")] * 2
    raw.answer = http(200, b"x", windows, "Expires: Sat, 06 Nov 2094 08:49:37 GMT")
    assert [told(await here.get("b")) for _ in range(2)] == [("loaded", b"x"), ("hit", b"x")]
