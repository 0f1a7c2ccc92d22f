"""The stand-in: bounded by bytes, least recently used first, expiry by its clock."""

from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.footprint import ENTRY_BYTES
from cachesvc.tiers.l2.in_process import MemoryTier
from cachesvc.tiers.l2.statistics import Fullness
from tests.doubles.clocks import ManualClock

KEYS = [Key.of("p", str(number)) for number in range(4)]


def entry(clock: ManualClock, size: int = 1000, stale_for: int = 0, error_for: int = 0) -> Entry:
    return Entry(bytes(size), clock.now_us(), clock.now_us() + 10 * SECONDS, stale_for, error_for)


async def held(tier: MemoryTier) -> str:
    return "".join(
        "." if lookup is None else key.text
        for key, lookup in zip(KEYS, await tier.get_many(KEYS), strict=True)
    )


async def test_the_least_recently_used_goes_when_the_bytes_are_full() -> None:
    clock = ManualClock()
    tier = MemoryTier(clock, 3 * (1000 + len(KEYS[0].id) + ENTRY_BYTES))
    await tier.set_many([(key, entry(clock)) for key in KEYS[:3]])
    await tier.get_many([KEYS[0]])
    await tier.set_many([(KEYS[3], entry(clock))])
    assert await held(tier) == "0.23"


async def test_replacing_and_deleting_give_bytes_back() -> None:
    clock = ManualClock()
    tier = MemoryTier(clock, 2 * (1000 + len(KEYS[0].id) + ENTRY_BYTES))
    for _ in range(5):
        await tier.set_many([(KEYS[0], entry(clock))])
    await tier.set_many([(KEYS[1], entry(clock))])
    await tier.delete_many([KEYS[0]])
    await tier.set_many([(KEYS[2], entry(clock))])
    assert await held(tier) == ".12."


async def test_an_entry_is_gone_when_its_last_window_ends() -> None:
    clock = ManualClock()
    tier = MemoryTier(clock, 1 << 20)
    await tier.set_many(
        [(KEYS[0], entry(clock)), (KEYS[1], entry(clock, stale_for=5 * SECONDS, error_for=20 * SECONDS))]
    )
    clock.advance(seconds=9.999999)
    assert await held(tier) == "01.."
    clock.advance(us=1)
    assert await held(tier) == ".1.."
    clock.advance(seconds=20)
    assert await held(tier) == "...."
    assert len(tier) == 0


async def test_statistics_count_what_happened() -> None:
    clock = ManualClock()
    tier = MemoryTier(clock, 1 << 20, max_entry_bytes=5000)
    await tier.set_many([(KEYS[0], entry(clock)), (KEYS[1], entry(clock, size=5000))])
    await held(tier)
    seen = tier.statistics()
    assert (seen.hits, seen.misses, seen.dropped, seen.batches, seen.batched_keys) == (1, 3, 1, 2, 6)


async def test_it_says_how_full_it_is() -> None:
    clock = ManualClock()
    charge = 1000 + len(KEYS[0].id) + ENTRY_BYTES
    tier = MemoryTier(clock, 2 * charge)
    await tier.set_many([(key, entry(clock)) for key in KEYS[:3]])
    assert await tier.fullness() == Fullness(items=2, bytes=2 * charge, limit=2 * charge, evictions=1)
