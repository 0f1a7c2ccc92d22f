"""The contract of tiers, proved on every implementation.

These are memory, a real memcached, each route, and the whole stack of L2.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest

from cachesvc.config.service import L2
from cachesvc.model.clock import SECONDS, Clock, SystemClock
from cachesvc.model.digest import digest
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.errors import TierError
from cachesvc.model.units import Duration, Size
from cachesvc.tiers.breaker import Breaker
from cachesvc.tiers.l2.batched import Batched
from cachesvc.tiers.l2.contract import Pool, Tier
from cachesvc.tiers.l2.deadline import Deadline
from cachesvc.tiers.l2.guarded import Guarded
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.measured import Measured
from cachesvc.tiers.l2.memcached import MemcachedTier
from cachesvc.tiers.l2.null import NullTier
from cachesvc.tiers.l2.ring import Ring
from cachesvc.tiers.l2.sharded import Sharded
from tests.doubles.servers import memcached_server

CLOCK = SystemClock()
PATIENT = L2(connect_timeout=Duration.parse("5s"), timeout=Duration.parse("5s"))
"""The machine that runs the tests may be busy; what happens when time runs out has its own tests."""


def memory(clock: Clock = CLOCK) -> MemoryTier:
    return MemoryTier(clock, Size.parse("64MiB"))


def stack(server: str, leaf: Tier) -> Pool:
    """As `app.py` builds it for one server."""
    measured = Measured(Deadline(leaf, PATIENT.timeout.seconds, name=server))
    return Batched(Guarded(measured, Breaker(), name=server), 512, name=server)


TIERS: Mapping[str, Callable[[Callable[[str], Tier]], Tier]] = {
    "memory": lambda _: memory(),
    "memcached": lambda memcached: memcached("mc-0"),
    "sharded": lambda _: Sharded(Ring({"a": 1, "b": 2, "c": 0.5}), {name: memory() for name in "abc"}),
    "batched": lambda _: Batched(memory(), 64),
    "guarded": lambda _: Guarded(memory(), Breaker()),
    "deadline": lambda _: Deadline(memory(), 5.0),
    "measured": lambda _: Measured(memory()),
    "stack": lambda memcached: Sharded(
        Ring({"mc-0": 1, "mc-1": 1}), {name: stack(name, memcached(name)) for name in ("mc-0", "mc-1")}
    ),
}


POOLS = ("memory", "sharded", "batched", "stack")
"""The tiers that take single keys as well."""


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    with memcached_server() as first, memcached_server(tcp=True) as second:
        yield {"mc-0": first.address, "mc-1": second.address}


@pytest.fixture(params=TIERS)
async def tier(request: pytest.FixtureRequest, addresses: dict[str, str]) -> AsyncIterator[Tier]:
    tier = TIERS[request.param](lambda name: MemcachedTier(name, addresses[name], PATIENT, CLOCK))
    await tier.start()
    yield tier
    await tier.stop()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> Callable[[str], Key]:
    """Keys that no other test uses: the servers are shared."""
    namespace = f"test-{digest(request.node.nodeid.encode())}"
    return lambda text: Key.of(namespace, text)


def entry(value: bytes = b"value", *, lives_seconds: float = 60, **fields: object) -> Entry:
    now = CLOCK.now_us()
    return Entry(value, now, now + round(lives_seconds * SECONDS), **fields)  # type: ignore[arg-type]  # fields of Entry


async def test_an_entry_comes_back_with_every_field(tier: Tier, key: Callable[[str], Key]) -> None:
    k = key("whole")
    tags = ("workspace:7", "tag with space", "étiquette")
    whole = Entry(
        value=bytes(range(256)) + b"END\r\nVALUE x 0 1\r\n",
        as_of=1_700_000_000_123_456,
        fresh_until=CLOCK.now_us() + 60 * SECONDS,
        stale_for=60 * SECONDS,
        error_for=600 * SECONDS,
        load_ms=17,
        content_type="text/html; charset=utf-8",
        tags=tags,
        tag_digests=tag_digests_of(k.namespace, tags),
        origin_etag='W/"abc"',
    )
    assert not await tier.set_many([(k, whole)])
    assert list(await tier.get_many([k])) == [whole]


@pytest.mark.parametrize("tier", POOLS, indirect=True)
async def test_a_key_asked_alone_is_answered_as_in_a_batch(tier: Pool, key: Callable[[str], Key]) -> None:
    held = entry(b"alone")
    await tier.set_many([(key("alone"), held)])
    asked = [asyncio.ensure_future(tier.ask(key(text))) for text in ("alone", "nowhere")]
    assert [await answer for answer in asked] == [held, None]


@pytest.mark.parametrize("tier", POOLS, indirect=True)
async def test_who_asks_alone_and_leaves_disturbs_nobody(tier: Pool, key: Callable[[str], Key]) -> None:
    await tier.set_many([(key(str(i)), entry(b"%d" % i)) for i in range(3)])
    asked = [asyncio.ensure_future(tier.ask(key(str(i)))) for i in range(3)]
    asked[0].cancel()
    assert [answer.value for answer in await asyncio.gather(*asked[1:]) if isinstance(answer, Entry)] == [
        b"1",
        b"2",
    ]


async def test_known_absent_is_an_entry_and_not_a_miss(tier: Tier, key: Callable[[str], Key]) -> None:
    absent = entry(b"", negative=True)
    await tier.set_many([(key("absent"), absent)])
    assert list(await tier.get_many([key("absent")])) == [absent]


async def test_an_empty_value_is_a_value(tier: Tier, key: Callable[[str], Key]) -> None:
    empty = entry(b"")
    await tier.set_many([(key("empty"), empty)])
    assert list(await tier.get_many([key("empty")])) == [empty]


async def test_a_value_of_nearly_one_mebibyte_is_kept(tier: Tier, key: Callable[[str], Key]) -> None:
    large = entry(b"\r\n" * (510 * 1024))
    assert not await tier.set_many([(key("large"), large)])
    assert list(await tier.get_many([key("large")])) == [large]


async def test_a_value_too_large_is_dropped_and_its_neighbours_are_kept(
    tier: Tier, key: Callable[[str], Key]
) -> None:
    before, after = entry(b"before"), entry(b"after")
    items = [(key("before"), before), (key("huge"), entry(b"x" * (1 << 20))), (key("after"), after)]
    assert not await tier.set_many(items)
    assert list(await tier.get_many([k for k, _ in items])) == [before, None, after]


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "tab\there",
        "x" * 1024,
        "x" * 250,
        "ключ/鍵/🗝",
        "{ws-7}:block:42",
        "percent%20",
        "#",
        "/",
        "é" * 500,
    ],
    ids=ascii,
)
async def test_any_key_text_is_a_key_of_its_own(tier: Tier, key: Callable[[str], Key], text: str) -> None:
    mine, other = entry(b"mine"), entry(b"other")
    await tier.set_many([(key(text), mine), (key(text + "x"), other)])
    assert list(await tier.get_many([key(text), key(text + "x"), key(text + "y")])) == [mine, other, None]


async def test_answers_stand_in_the_order_of_the_keys_misses_and_repetitions_too(
    tier: Tier, key: Callable[[str], Key]
) -> None:
    entries = {f"k{number}": entry(b"%d" % number) for number in range(0, 40, 2)}
    await tier.set_many([(key(text), kept) for text, kept in entries.items()])
    asked = [f"k{number}" for number in [*range(39, -1, -1), 4, 4, 5]]
    assert list(await tier.get_many([key(text) for text in asked])) == [entries.get(text) for text in asked]


async def test_more_keys_than_a_batch_holds_are_answered(tier: Tier, key: Callable[[str], Key]) -> None:
    entries = [(key(f"{number:0240d}"), entry(b"%d" % number)) for number in range(1500)]
    assert not await tier.set_many(entries)
    assert list(await tier.get_many([k for k, _ in entries])) == [kept for _, kept in entries]


async def test_a_set_replaces(tier: Tier, key: Callable[[str], Key]) -> None:
    old, new = entry(b"old"), entry(b"new and longer")
    await tier.set_many([(key("k"), old)])
    await tier.set_many([(key("k"), new)])
    assert list(await tier.get_many([key("k")])) == [new]


async def test_of_two_sets_in_one_call_the_later_one_stays(tier: Tier, key: Callable[[str], Key]) -> None:
    first, last = entry(b"first"), entry(b"last")
    await tier.set_many([(key("k"), first), (key("k"), last)])
    assert list(await tier.get_many([key("k")])) == [last]


async def test_deleted_entries_are_gone_and_deleting_an_absent_one_is_fine(
    tier: Tier, key: Callable[[str], Key]
) -> None:
    kept = entry()
    await tier.set_many([(key("gone"), entry()), (key("kept"), kept)])
    assert not await tier.delete_many([key("gone"), key("never there")])
    assert not await tier.delete_many([key("gone")])
    assert list(await tier.get_many([key("gone"), key("kept")])) == [None, kept]


async def test_an_entry_past_its_use_is_not_kept(tier: Tier, key: Callable[[str], Key]) -> None:
    past = entry(lives_seconds=-100, stale_for=10 * SECONDS, error_for=20 * SECONDS)
    assert not await tier.set_many([(key("past"), past)])
    assert list(await tier.get_many([key("past")])) == [None]


async def test_a_stale_entry_is_kept_as_long_as_it_may_be_served(
    tier: Tier, key: Callable[[str], Key]
) -> None:
    stale = entry(lives_seconds=-100, error_for=300 * SECONDS)
    await tier.set_many([(key("stale"), stale)])
    assert list(await tier.get_many([key("stale")])) == [stale]


@pytest.mark.parametrize("days", [29, 30, 31, 400])
async def test_a_life_of_more_than_thirty_days_is_not_taken_for_a_date(
    tier: Tier, key: Callable[[str], Key], days: int
) -> None:
    old = entry(lives_seconds=days * 86_400)
    await tier.set_many([(key("old"), old)])
    assert list(await tier.get_many([key("old")])) == [old]


async def test_calls_with_nothing_in_them_do_nothing(tier: Tier) -> None:
    assert not await tier.get_many([])
    assert not await tier.set_many([])
    assert not await tier.delete_many([])


async def test_concurrent_callers_get_their_own_answers(tier: Tier, key: Callable[[str], Key]) -> None:
    entries = {number: entry(b"%d" % number * number) for number in range(0, 400, 3)}
    await tier.set_many([(key(str(number)), kept) for number, kept in entries.items()])
    answers = await asyncio.gather(*(tier.get_many([key(str(number))]) for number in range(400)))
    assert [list(answer) for answer in answers] == [[entries.get(number)] for number in range(400)]


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
async def test_cancelled_callers_leave_the_connection_in_step(
    tier: Tier, key: Callable[[str], Key], turns: int
) -> None:
    """Whoever stays gets the own entry or an error, never another's; who comes later notices nothing."""
    entries = {number: entry(b"%d;" % number * 200) for number in range(120)}
    await tier.set_many([(key(str(number)), kept) for number, kept in entries.items()])
    callers = [asyncio.ensure_future(tier.get_many([key(str(number))])) for number in entries]
    for _ in range(turns):
        await asyncio.sleep(0)
    for leaver in callers[::2]:
        leaver.cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    for number, answer in enumerate(answers):
        if not isinstance(answer, asyncio.CancelledError):
            assert not isinstance(answer, BaseException)
            assert answer[0] == entries[number] or isinstance(answer[0], TierError)
    everything = await tier.get_many([key(str(number)) for number in entries])
    assert list(everything) == list(entries.values())


async def test_the_null_tier_answers_every_key_with_a_miss_and_takes_every_write() -> None:
    tier = NullTier()
    await tier.start()
    keys = [Key.of("pages", text) for text in "abc"]
    assert not await tier.set_many([(key, entry()) for key in keys])
    assert list(await tier.get_many(keys)) == [None, None, None]
    assert not await tier.delete_many(keys)
    await tier.stop()
