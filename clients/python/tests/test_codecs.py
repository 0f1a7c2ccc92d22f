"""A hit and a miss are the same value, or the value is refused with the reason."""

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import logging
import math
import pickle
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from cachesvc_client import JSON, MSGPACK, Codec, CodecError, json_of, msgpack_of
from cachesvc_client.testing import FakeService
from cachesvc_client.values.codecs import BYTES, Schema
from cachesvc_client.values.round_trip import _are_written_alike, _difference
from hypothesis import given, settings
from hypothesis import strategies as st


class Plan(enum.Enum):
    FREE = "free"


class Tint(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class User:
    name: str
    price: float = 0.0
    extra: Any = None


@dataclasses.dataclass
class Admin(User):
    rights: tuple[str, ...] = ()


@dataclasses.dataclass(eq=False)
class Incomparable:
    name: str


@dataclasses.dataclass
class Hidden:
    name: str
    secret: Any = dataclasses.field(default=None, compare=False)


class Page(msgspec.Struct):
    title: str
    at: datetime.datetime | None = None
    tags: frozenset[str] = frozenset()
    extra: Any = None


def is_same(one: Any, other: Any) -> bool:
    """True if both are equal and of the same types, deeply; written without the code under test."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one, math.copysign(1, one)) == (
            other,
            math.copysign(1, other),
        )
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            is_same(a, b) and is_same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, set | frozenset):
        return is_same(sorted(one, key=repr), sorted(other, key=repr))
    if dataclasses.is_dataclass(one):
        return is_same(vars(one), vars(other))
    if isinstance(one, msgspec.Struct):
        return is_same(msgspec.structs.asdict(one), msgspec.structs.asdict(other))
    if isinstance(one, datetime.datetime) and one.utcoffset() != other.utcoffset():
        return False
    if isinstance(one, decimal.Decimal):
        return str(one) == str(other)
    return bool(one == other)


KEYS = st.one_of(
    st.text(max_size=3),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(),
    st.dates(),
    st.uuids(),
    st.sampled_from([*Plan, *Tint, *Level, Name("n"), (1, 2)]),
)
LEAVES = st.one_of(
    KEYS,
    st.text(alphabet=st.characters(exclude_categories=[]), max_size=3),
    st.integers(-(2**70), 2**70),
    st.binary(max_size=3),
    st.binary(max_size=3).map(bytearray),
    st.decimals(),
    st.datetimes(timezones=st.none() | st.timezones() | st.just(datetime.UTC)),
    st.times(),
    st.timedeltas(),
    st.complex_numbers(),
    st.builds(Point, st.integers(), st.integers()),
    st.builds(User, st.text(max_size=2), st.floats() | st.integers()),
    st.builds(Page, st.text(max_size=2)),
    st.builds(Incomparable, st.text(max_size=2)),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=2).map(collections.OrderedDict),
        st.frozensets(KEYS, max_size=3),
        st.sets(KEYS, max_size=3),
        st.builds(User, st.text(max_size=2), st.just(1), inner),
        st.builds(Page, st.text(max_size=2), st.none(), st.just(frozenset()), inner),
    ),
    max_leaves=6,
)


def sealed_or_refused(codec: Codec[Any], value: Any) -> Any:
    """The answer of a miss, after a check that a hit has the same; the value itself if it is refused."""
    schema = Schema(codec)
    try:
        sealed = schema.seal(value)
    except CodecError:
        with pytest.raises(CodecError):
            schema.encode(value)
        return value
    assert schema.encode(value) == sealed.encoded
    assert is_same(schema.decode(sealed.encoded, codec.content_type), sealed.value)
    return sealed.value


@pytest.mark.parametrize("codec", [JSON, MSGPACK, BYTES, json_of(object)])
@settings(deadline=None)
@given(value=VALUES)
def test_without_a_type_a_value_comes_back_as_it_was_or_is_refused(codec: Codec[Any], value: Any) -> None:
    assert is_same(sealed_or_refused(codec, value), value)


TYPES: list[Any] = [
    *(int, float, str, bool, bytes, dict, list, tuple, uuid.UUID, decimal.Decimal, Plan, Tint, Level, Point),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, User, Page, Hidden, Incomparable),
    *(list[int], tuple[int, ...], set[int], frozenset[str], list[float], list[Any], float | None),
    *(dict[str, Any], dict[int, str], dict[str, float], dict[str, int | None], dict[datetime.date, int]),
]

FITTING: dict[Any, st.SearchStrategy[Any]] = {
    User: st.builds(User, st.text(max_size=2), st.floats() | st.integers(), VALUES),
    Page: st.builds(Page, st.text(max_size=2), st.none() | st.datetimes(), st.frozensets(st.text()), VALUES),
    Hidden: st.builds(Hidden, st.text(max_size=2), VALUES),
    list: st.lists(VALUES, max_size=3),
    tuple: st.lists(VALUES, max_size=3).map(tuple),
    dict: st.dictionaries(KEYS, VALUES, max_size=3),
    list[Any]: st.lists(VALUES, max_size=3),
    dict[str, Any]: st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
}
"""Values that fit a type but for the parts about which the type says nothing."""


@pytest.mark.parametrize("codec_of", [json_of, msgpack_of])
@settings(deadline=None)
@given(kind=st.sampled_from(TYPES), value=VALUES, data=st.data())
def test_with_a_type_a_hit_and_a_miss_are_the_same_or_the_value_is_refused(
    codec_of: Callable[[Any], Codec[Any]], kind: Any, value: Any, data: st.DataObject
) -> None:
    fitting = data.draw(st.just(value) | (FITTING[kind] if kind in FITTING else st.from_type(kind)))
    answered = sealed_or_refused(codec_of(kind), fitting)
    assert type(answered) is type(fitting) or answered == fitting or answered != answered


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"user": {"id": uuid.UUID(int=1)}}, r"\$\.user\.id: UUID comes back as str: name a type="),
        ((1, 2), r"\$: tuple comes back as list"),
        ([{1}], r"\$\[0\]: set comes back as list"),
        ([frozenset({1})], r"\$\[0\]: frozenset comes back as list"),
        ({1: "a"}, r"\$\[1\] \(the key itself\): int comes back as str"),
        ({1: "a", "1": "b"}, "comes back as|keys come back"),
        ({"a b": [1, b"x"]}, r"\$\['a b'\]\[1\]: bytes comes back as str"),
        ({"x": math.nan}, r"\$\.x: nan comes back as None"),
        ([math.inf], r"\$\[0\]: inf comes back as None"),
        (User("Ada"), r"\$: User comes back as dict"),
        (Page("Home"), r"\$: Page comes back as dict"),
        (Point(1, 2), r"\$: Point comes back as list"),
        (datetime.datetime(2026, 1, 2), r"\$: datetime comes back as str"),
        (datetime.date(2026, 1, 2), r"\$: date comes back as str"),
        (datetime.time(1), r"\$: time comes back as str"),
        (datetime.timedelta(1), r"\$: timedelta comes back as str"),
        (decimal.Decimal("1.0"), r"\$: Decimal comes back as str"),
        (Plan.FREE, r"\$: Plan comes back as str"),
        (Tint.RED, r"\$: Tint comes back as str"),
        (Level.LOW, r"\$: Level comes back as int"),
        (collections.defaultdict(int), r"\$: defaultdict comes back as dict"),
        ({"a": ["\ud800"]}, r"\$\.a\[0\]: .*surrogates"),
        ({"a": [1, 1j]}, r"\$\.a\[1\]: .*complex"),
        (nested(100_000), "recursion"),
    ],
)
def test_a_value_that_would_come_back_as_another_is_refused_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        JSON.encode(value)
    with pytest.raises(CodecError):
        Schema(JSON).seal(value)


@pytest.mark.parametrize(
    "value",
    [-0.0, 2**64, -(2**63), 10**30, True, None, "", [], {}, {"a": [1, 2.5, "x", None, False]}, nested(90)],
)
def test_a_plain_value_comes_back_as_it_was(value: Any) -> None:
    assert is_same(Schema(JSON).seal(value).value, value)


def test_messagepack_has_bytes_whole_keys_and_nan_but_no_bytearray_and_no_longer_integers() -> None:
    for value in (
        b"x",
        {1: {None: 2}, (3, 4): 5},
        [math.nan, math.inf],
        2**64 - 1,
        datetime.datetime.now(datetime.UTC),
    ):
        assert is_same(Schema(MSGPACK).seal(value).value, value)
    refused: list[tuple[Any, str]] = [
        (bytearray(b"x"), "bytearray comes back as bytes"),
        ([2**64], r"\$\[0\]: .*2\*\*64"),
        (datetime.datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), "another time zone"),
    ]
    for value, why in refused:
        with pytest.raises(CodecError, match=why):
            MSGPACK.encode(value)


def test_bytes_are_bytes_and_nothing_like_them() -> None:
    class Blob(bytes):
        pass

    for value in (bytearray(b"x"), memoryview(b"x"), Blob(b"x"), "x"):
        with pytest.raises(CodecError, match="a value here is bytes"):
            BYTES.encode(value)  # type: ignore[arg-type]  # the mistake in question


@pytest.mark.parametrize(
    ("kind", "value", "answer"),
    [
        (float, 1, 1.0),
        (User, User("Ada", 3), User("Ada", 3.0)),
        (dict[str, str], {"a": Tint.RED}, {"a": "red"}),
        (dict[str, int], collections.Counter("a"), {"a": 1}),
        (Incomparable, Incomparable("a"), Incomparable("a")),
        (dict[datetime.date, int], {datetime.date(2026, 1, 2): 1}, {datetime.date(2026, 1, 2): 1}),
    ],
)
def test_an_equal_value_is_answered_in_the_declared_type(kind: Any, value: Any, answer: Any) -> None:
    assert is_same(Schema(json_of(kind)).seal(value).value, answer)


def test_a_moment_of_a_zone_is_answered_with_its_offset() -> None:
    berlin = datetime.datetime(2026, 7, 2, tzinfo=ZoneInfo("Europe/Berlin"))
    back = Schema(json_of(datetime.datetime)).seal(berlin).value
    assert (back, back.utcoffset()) == (berlin, datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (User, User(7), "could not be read again: Expected `str`, got `int` - at `\\$.name`"),  # type: ignore[arg-type]  # the mistake in question
        (User, User("Ada", math.nan), "Expected `float`, got `null`"),
        (float | None, math.nan, r"\$: nan comes back as None"),
        (
            User,
            User("Ada", extra=uuid.UUID(int=1)),
            r"\$\.extra: UUID comes back as str: name a type= that fits",
        ),
        (User, Admin("Ada", rights=("all",)), r"\$: Admin comes back as User"),
        (Hidden, Hidden("Ada", (1,)), r"\$\.secret: tuple comes back as list"),
        (list[int], (1, 2), r"\$: tuple comes back as list"),
        (dict[str, Any], {1: 2}, r"the key itself\): int comes back as str"),
        (Page, Page("Home", extra={"at": [datetime.date(2026, 1, 2)]}), r"\$\.extra\.at\[0\]: date comes"),
        (User, None, "could not be read again: .*: ABSENT stands for a value that does not exist"),
        (complex, 1j, "complex is unsupported"),
    ],
)
def test_a_value_that_does_not_fit_the_type_is_refused(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        json_of(kind).encode(value)


@settings(deadline=None)
@given(VALUES, VALUES)
def test_the_quick_answer_is_never_yes_where_the_comparison_says_no(one: Any, other: Any) -> None:
    for given_, back in ((one, other), (one, one), (one, pickle.loads(pickle.dumps(one)))):  # noqa: S301  ours
        if _are_written_alike(given_, back) and b"bytearray" not in pickle.dumps([given_, back]):
            assert _difference(given_, back, True) == ""


# the way of a value through the cache -------------------------------------------------------------


def loading(value: Any) -> Any:
    async def load(key: str) -> Any:
        return value

    return load


async def test_a_miss_a_hit_and_a_load_without_the_cache_are_the_same() -> None:
    service = FakeService()
    async with service.cache() as cache:
        users = cache.namespace("users", type=User)
        given_ = User("Ada", 3)
        miss = await users.get_or_load("7", loading(given_))
        hits = [await users.get_or_load("7", loading(None)), await users.get("7")]
        assert all(is_same(one, User("Ada", 3.0)) for one in (miss, *hits))
        assert miss is not given_
        service.down()
        assert is_same(await users.get_or_load("8", loading(given_)), miss)


async def test_a_value_that_does_not_come_back_is_refused_with_and_without_the_cache() -> None:
    service = FakeService()
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=JSON)
        with pytest.raises(CodecError, match=r"\$\.id: UUID comes back as str"):
            await pages.get_or_load("a", loading({"id": uuid.UUID(int=1)}))
        with pytest.raises(CodecError, match="tuple comes back as list"):
            await pages.set("a", (1, 2))
        with pytest.raises(CodecError, match="tuple comes back as list"):
            await pages.set_many({"b": [1], "a": (1, 2)})
        assert (service.held("pages", "a"), service.held("pages", "b")) == (None, None)

        @pages.cached("user:{id}")
        async def user(id: int) -> Any:  # noqa: A002  a parameter's name
            return User("Ada")

        with pytest.raises(CodecError, match="User comes back as dict"):
            await user(7)
        service.down()
        with pytest.raises(CodecError, match="UUID comes back as str"):
            await pages.get_or_load("a", loading({"id": uuid.UUID(int=1)}))


async def test_the_lease_of_a_value_that_does_not_come_back_is_given_back() -> None:
    service = FakeService()
    async with service.cache() as cache:
        with pytest.raises(CodecError):
            await cache.namespace("pages", codec=JSON).get_or_load("a", loading((1,)))
    assert service.take_lease("pages", "a"), "the next caller need not wait"


async def test_a_refresh_that_brings_what_cannot_be_stored_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = FakeService()
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=JSON)
        await pages.set("a", [1], ttl="1m", stale="1h")
        service.clock.advance("2m")
        with caplog.at_level(logging.ERROR):
            assert await pages.get_or_load("a", loading((1,))) == [1]
            for _ in range(1000):
                await asyncio.sleep(0)
    assert "tuple comes back as list" in caplog.text


def test_the_sync_client_answers_the_same() -> None:
    service = FakeService()
    with service.sync_cache() as cache:
        users = cache.namespace("users", type=User)
        miss = users.get_or_load("7", lambda key: User("Ada", 3))
        assert is_same(miss, users.get_or_load("7", lambda key: User("Eve")))
        pages = cache.namespace("pages", codec=JSON)
        with pytest.raises(CodecError, match="tuple comes back as list"):
            pages.get_or_load("a", lambda key: (1, 2))
        pages.set("b", [1], ttl="1m", stale="1h")
        service.clock.advance("2m")
        with pytest.raises(CodecError, match="tuple comes back as list"):
            pages.get_or_load("b", lambda key: (1, 2))
        service.down()
        assert is_same(users.get_or_load("8", lambda key: User("Ada", 3)), miss)


async def test_a_codec_of_ones_own_vouches_for_itself() -> None:
    class Pickled:
        content_type = "application/x-pickle"

        def encode(self, value: Any) -> bytes:
            return pickle.dumps(value)

        def decode(self, value: bytes) -> Any:
            return pickle.loads(value)  # noqa: S301  ours

        def seal(self, value: bytes) -> bytes:
            raise AssertionError("a method of the codec's own")

    service, value = FakeService(), {"id": uuid.UUID(int=1)}
    async with service.cache() as cache:
        pages = cache.namespace("pages", codec=Pickled())
        assert await pages.get_or_load("a", loading(value)) is value
        assert await pages.get("a") == value


async def test_a_stored_value_that_does_not_fit_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    async with service.cache() as cache:
        await cache.namespace("pages", codec=JSON).set_many({"a": "x", "b": "y"})
        numbers = cache.namespace("pages", type=int)
        assert [await numbers.get("a"), await numbers.get_or_load("b", loading(3))] == [None, 3]
        assert cache.statistics().unreadable == 2
    (record,) = [record for record in caplog.records if "does not fit" in record.getMessage()]
    assert record.levelno == logging.WARNING
