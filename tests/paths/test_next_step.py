"""A read does what `next_step` says of it, whatever the tiers hold.

`:explain` puts the word of `next_step` into sentences; each test explains a read, then reads.
"""

import asyncio
from collections.abc import Iterator
from itertools import permutations, product

import pytest
from msgspec.structs import replace

from cachesvc.explain.answer import Now, Question
from cachesvc.model.change import Target
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.errors import OriginError
from cachesvc.model.fence import Fence
from cachesvc.model.requests import PLAIN, Answer, Outcome, ReadOptions
from cachesvc.tiers.l3.contract import Fill, Read
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

SECOND = 1_000_000
YOUNGEST_SECONDS = 10
"""A copy of rank n is n seconds older than this."""

L1 = ("none", "fresh", "stale", "last resort", "refused", "fresh absence", "stale absence")
L2 = (*L1, "down")
L3 = (*L1, "refused at home")
HOMES = ("free", "held", "down")
READS = {
    "plain": ("docs", PLAIN),
    "look-aside": ("aside", PLAIN),
    "lease": ("aside", ReadOptions(lease=True, wait_seconds=1.0)),
    "only-if-cached": ("docs", ReadOptions(only_if_cached=True)),
    "max-age": ("docs", ReadOptions(max_age_us=12 * SECOND)),
    "no-cache": ("docs", ReadOptions(no_cache=True)),
    "max-stale": ("docs", ReadOptions(max_stale_us=100 * SECOND)),
}


def combinations(read: str) -> Iterator[tuple[tuple[str, str, str], tuple[int, ...]]]:
    """Yields what each tier holds, and the rank of each copy by age.

    All that the tiers may hold for plain reads, a third of it for others; all orders of age come up.
    """
    orders = list(permutations((1, 2, 3)))
    every = 1 if read == "plain" else 3
    for number, held in enumerate(product(L1, L2, L3)):
        if number % every == 0:
            yield held, orders[number // every % len(orders)]


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("read", READS)
async def test_a_read_does_what_next_step_says(read: str, home: str) -> None:
    namespace, options = READS[read]
    for held, order in combinations(read):
        here, key = await world(namespace, held, order, home)
        said = await explained(here, key, options)
        did = await done(here, key, options)
        assert did == said.a_read_would, (held, order, said)
        await here.tasks.stop()


async def test_after_a_gap_a_read_does_what_next_step_says() -> None:
    """The floor refuses all copies but those of L3, which their home judges."""
    answered = set()
    for held, order in combinations("plain"):
        here, key = await world("docs", held, order, "free")
        here.fences.raise_floor(here.clock.now_us())
        said = await explained(here, key, PLAIN)
        assert await done(here, key, PLAIN) == said.a_read_would, (held, order, said)
        answered.add(said.a_read_would)
        await here.tasks.stop()
    assert answered == {
        "answer from l3",
        "answer stale from l3",
        "answer that there is no such value, from l3",
        "load from the origin",
    }


@pytest.mark.parametrize("read", ["plain", "max-age"])
async def test_a_read_whose_load_fails_does_what_next_step_says(read: str) -> None:
    namespace, options = READS[read]
    for held, order in combinations(read):
        here, key = await world(namespace, held, order, "free")
        here.far.loader.default = OriginError("down")
        said = await explained(here, key, options)
        if said.a_read_would == "load from the origin":
            answer = await here.reader.get(key, options)
            did = f"if the origin fails, it would answer stale from {answer.tier}"
            assert said.but == (did if answer.outcome is Outcome.STALE else ""), (held, order, said)
        await here.tasks.stop()


# the world ----------------------------------------------------------------------------------------


async def world(
    namespace: str, held: tuple[str, str, str], order: tuple[int, ...], home: str
) -> tuple[Instance, Key]:
    far = FarSide()
    here, key = Instance(far), Key.of(namespace, "a")
    now = here.clock.now_us()
    far.l2.down = held[1] == "down"
    entries = [
        entry(namespace, tier, what, now - (YOUNGEST_SECONDS + rank) * SECOND, now)
        for tier, what, rank in zip(("l1", "l2", "l3"), held, order, strict=True)
    ]
    if (copy := entries[0]) is not None:
        here.l1.put(key, copy)
    if (copy := entries[1]) is not None:
        await far.pool.set_many([(key, copy)])
    if (copy := entries[2]) is not None:
        await fill_home(far, key, copy)
    if held[2] == "refused at home":
        await far.cell.fence_many([Target.tag(namespace, "l3")], soft=False)
    fenced = [tier for tier, what in zip(("l1", "l2", "l3"), held, strict=True) if what == "refused"]
    here.merger.merge([Fence(Target.tag(namespace, tier).digest, now, unapplied=True) for tier in fenced])
    if home == "held":
        await far.cell.read_many([Read(key, lease=True, refresh=True)])
    far.cell.down = home == "down"
    return here, key


def entry(namespace: str, tier: str, what: str, as_of: int, now: int) -> Entry | None:
    """A copy with its tier as its tag, so that a fence can refuse it there and nowhere else."""
    if what in ("none", "down"):
        return None
    made = Entry(
        tier.encode(), as_of, now + 60 * SECOND, 20 * SECOND, 40 * SECOND,
        tags=(tier,), tag_digests=tag_digests_of(namespace, (tier,)), negative=what.endswith("absence"),
    )  # fmt: skip
    past = {"stale": 10, "stale absence": 10, "last resort": 30}.get(what)
    return made if past is None else replace(made, fresh_until=now - past * SECOND)


async def fill_home(far: FarSide, key: Key, copy: Entry) -> None:
    (granted,) = await far.cell.read_many([Read(key, lease=True)])
    (filled,) = await far.cell.fill_many([Fill(key, copy, granted.lease)])
    assert filled.stored


async def explained(here: Instance, key: Key, options: ReadOptions) -> Now:
    seen = await here.explainer.see(key, Question(options))
    assert seen.now is not None
    return seen.now


async def done(here: Instance, key: Key, options: ReadOptions) -> str:
    """Reads, and says what the read did in the words of an explanation."""
    reading = asyncio.create_task(here.reader.get(key, options))
    await asyncio.sleep(0.01)
    if not reading.done():
        assert not here.far.loader.calls
        reading.cancel()
        return "wait for another's load"
    return in_words(here, await reading)


def in_words(here: Instance, answer: Answer) -> str:
    match answer.outcome:
        case Outcome.LOADED:
            return "load from the origin" + ("" if here.tally.leases_granted else " without a lease")
        case Outcome.HIT:
            return f"answer from {answer.tier}"
        case Outcome.ABSENT:
            return f"answer that there is no such value, from {answer.tier}"
        case Outcome.STALE:
            return f"answer stale from {answer.tier}"
        case outcome:
            return outcome.name.lower()
