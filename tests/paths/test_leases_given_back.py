"""A lease ends on every way out of a load: nobody waits for a fill that does not come."""

import asyncio
from collections.abc import Callable

import pytest

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError, TierUnavailableError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Draft, Outcome, ReadOptions, Release
from cachesvc.model.use import UNKEPT
from cachesvc.paths.flight import Mode
from cachesvc.paths.unkept import MOST_KEYS, REMEMBERED_SECONDS, Unkept
from cachesvc.tiers.l3.contract import Fill, FillReply, Read, Reply
from cachesvc.tiers.origin.contract import Loaded
from tests.doubles.clocks import LoopClock
from tests.doubles.loaders import Script, absent, loaded
from tests.paths.world import FarSide, Instance

pytestmark = pytest.mark.looptime

LEASING = ReadOptions(lease=True)
WAITING = ReadOptions(lease=True, wait_seconds=20.0)
ASIDE = Key.of("aside", "a")


async def is_free(far: FarSide, key: Key) -> bool:
    """True if the home grants the key's lease to the next reader."""
    (reply,) = await far.cell.read_many([Read(key, lease=True, lease_us=60_000_000, refresh=True)])
    assert isinstance(reply, Reply)
    return reply.lease is not None


def failing(error: Exception) -> Callable[[Key], Loaded]:
    def load(_: Key) -> Loaded:
        raise error

    return load


# the service's own loads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        OriginError("down"),
        OriginError("answered 403", kind=ProblemKind.ORIGIN_REFUSED, origin_status=403),
        failing(RuntimeError("a defect of a loader")),
        loaded(use=UNKEPT),
        loaded(tags=("{other}:t",)),
        absent(tags=("{other}:t",)),
        loaded(age_us=10**12),
    ],
    ids=[
        "failed",
        "refused",
        "defect",
        "no-store",
        "foreign-tag",
        "absent-foreign-tag",
        "older-than-the-fence",
    ],
)
async def test_a_load_without_a_fill_gives_its_lease_back(script: Script) -> None:
    here = Instance()
    await here.invalidate("a")
    here.far.loader.script("a", script)
    await here.get("a")
    assert await is_free(here.far, Key.of("docs", "a"))


@pytest.mark.parametrize(
    "script",
    [loaded(use=UNKEPT), OriginError("answered 403", kind=ProblemKind.ORIGIN_REFUSED, origin_status=403)],
    ids=["no-store", "refused"],
)
async def test_a_lease_is_given_back_though_the_older_copy_cannot_be_invalidated(
    script: Script,
) -> None:
    """While the queue is out of reach, no fence ends the lease in passing."""
    here = Instance()
    here.far.loader.script("a", loaded(b"old", ttl_us=1_000_000, stale_for_us=900_000_000), script)
    await here.get("a")
    await asyncio.sleep(5)
    here.changes.down = True
    await here.get("a")
    await asyncio.sleep(0.5)
    assert (here.far.loader.loads("a"), here.tally.older_forgotten) == (2, 1)
    assert await is_free(here.far, Key.of("docs", "a"))


async def test_a_load_that_takes_too_long_gives_its_lease_back() -> None:
    here = Instance()
    here.far.loader.hold()
    await here.get("a", "slow")
    assert await is_free(here.far, Key.of("slow", "a"))


async def test_an_instance_that_stops_gives_the_leases_of_its_loads_back() -> None:
    here = Instance()
    here.far.loader.hold()
    readers = [asyncio.create_task(here.get(key)) for key in ("a", "b")]
    await here.far.loader.called(2)
    await here.tasks.stop()
    await asyncio.gather(*readers, return_exceptions=True)
    assert await is_free(here.far, Key.of("docs", "a"))
    assert await is_free(here.far, Key.of("docs", "b"))


async def test_a_fill_that_the_home_does_not_take_gives_its_lease_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Instance()

    async def full(_: object, fills: list[Fill]) -> list[TierUnavailableError]:
        return [TierUnavailableError("c1", "OOM")] * len(fills)

    monkeypatch.setattr(type(here.far.cell.cell), "fill_many", full)
    assert (await here.get("a")).outcome is Outcome.LOADED
    assert await is_free(here.far, Key.of("docs", "a"))


async def test_a_fill_that_cannot_be_encoded_gives_its_lease_back(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Instance()

    async def broken(_: object, __: list[Fill]) -> list[FillReply]:
        raise ValueError("no record can be made of it")

    monkeypatch.setattr(type(here.far.cell.cell), "fill_many", broken)
    assert (await here.get("a")).outcome is Outcome.ERROR
    assert await is_free(here.far, Key.of("docs", "a"))


async def test_a_copy_that_is_fresh_here_and_stale_at_home_gives_the_granted_lease_back() -> None:
    far = FarSide()
    behind = Instance(far, clock=LoopClock(-100_000))
    await behind.get("a", "hot")
    behind.l1.clear()
    far.l2.down = True
    copy = (await far.cell.inspect(Key.of("hot", "a"), ())).entry
    assert copy is not None
    await asyncio.sleep((copy.fresh_until - far.clock.now_us()) / 1e6 + 0.05)
    answer = await behind.get("a", "hot")
    assert (answer.outcome, answer.tier) == (Outcome.HIT, "l3")
    assert await is_free(far, Key.of("hot", "a"))


# leases for callers -------------------------------------------------------------------------------


async def test_a_lease_that_nobody_claims_goes_back() -> None:
    here = Instance()
    here.far.cell.hold["read_many"] = answered = asyncio.Event()
    callers = [asyncio.create_task(here.get("a", "aside", LEASING)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    answered.set()
    await asyncio.sleep(0.001)
    assert await is_free(here.far, ASIDE)


@pytest.mark.parametrize("leaving", [1, 2])
async def test_a_caller_that_stays_gets_the_lease_of_those_that_leave(leaving: int) -> None:
    here = Instance()
    here.far.cell.hold["read_many"] = answered = asyncio.Event()
    callers = [asyncio.create_task(here.get("a", "aside", LEASING)) for _ in range(3)]
    await asyncio.sleep(0.01)
    answered.set()
    await asyncio.sleep(0)
    for caller in callers[:leaving]:
        caller.cancel()
    answers = await asyncio.gather(*callers[leaving:])
    held = [answer.lease for answer in answers if answer.lease]
    assert len(held) == 1 or await is_free(here.far, ASIDE)


async def test_a_caller_that_is_cancelled_with_the_lease_in_hand_gives_it_back() -> None:
    """A batch: the lease of one key is claimed, and the other key's answer is waited for."""
    here = Instance()
    other = Key.of("aside", "b")
    (held,) = await here.far.cell.read_many([Read(other, lease=True, lease_us=60_000_000)])
    assert held.lease is not None
    caller = asyncio.create_task(here.reader.get_many([ASIDE, other], WAITING))
    await asyncio.sleep(1.0)
    assert not await is_free(here.far, ASIDE)
    caller.cancel()
    await asyncio.wait([caller])
    assert await is_free(here.far, ASIDE)


async def test_a_deadline_that_comes_before_the_lease_leaves_it_to_the_next() -> None:
    here = Instance()
    here.far.cell.hold["read_many"] = answered = asyncio.Event()
    answer = await here.get("a", "aside", ReadOptions(lease=True, timeout_seconds=0.05))
    assert answer.outcome is Outcome.ERROR
    answered.set()
    await asyncio.sleep(0.001)
    assert await is_free(here.far, ASIDE)


async def test_an_answer_that_does_not_reach_its_caller_gives_its_lease_back() -> None:
    here = Instance()
    answer = await here.get("a", "aside", LEASING)
    assert answer.lease
    here.reader.give_back(ASIDE, answer)
    assert await is_free(here.far, ASIDE)


async def test_a_flight_that_a_fill_lands_keeps_no_lease_that_its_poll_is_granted() -> None:
    here = Instance()
    lease = (await here.get("a", "aside", LEASING)).lease
    waiter = asyncio.create_task(here.get("a", "aside", WAITING))
    await asyncio.sleep(0.001)
    here.far.cell.hold["read_many"] = answered = asyncio.Event()
    await here.far.cell.release_many([(ASIDE, lease)])
    await asyncio.sleep(0.5)  # the poll is granted the lease, and its answer is on the way
    flight = here.flights.find(ASIDE, Mode.LEASE)
    assert flight is not None
    here.reader.filled(ASIDE, _entry(here))
    assert (await waiter).outcome is Outcome.HIT
    assert flight.landing is not None
    answered.set()
    await asyncio.sleep(0.001)
    assert await is_free(here.far, ASIDE)


def _entry(here: Instance) -> Entry:
    return here.writer._entry_of(here.topology.namespaces["aside"], ASIDE, Draft(b"v"), here.clock.now_us())


# releases by callers ------------------------------------------------------------------------------


async def test_a_release_ends_its_own_lease_only() -> None:
    here = Instance()
    first = (await here.get("a", "aside", LEASING)).lease
    assert await _release(here, first) == "released"
    second = (await here.get("a", "aside", LEASING)).lease
    assert second
    assert second != first
    assert await _release(here, first) == "released"
    assert not await is_free(here.far, ASIDE)
    assert (await here.put("a", b"v", lease=second)).stored
    assert await _release(here, second) == "released"
    assert (await here.get("a", "aside")).outcome is Outcome.HIT
    assert here.tally.leases_released == 1


async def test_a_waiter_gets_the_lease_as_soon_as_it_is_given_back() -> None:
    here = Instance()
    lease = (await here.get("a", "aside", LEASING)).lease
    waiters = [asyncio.create_task(here.get("a", "aside", WAITING)) for _ in range(3)]
    await asyncio.sleep(2.0)
    began = asyncio.get_running_loop().time()
    await _release(here, lease)
    done, pending = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    assert asyncio.get_running_loop().time() == began
    (winner,) = done
    assert winner.result().lease
    for waiter in pending:
        waiter.cancel()
    await asyncio.wait(pending)


async def test_a_release_to_a_home_out_of_reach_says_so() -> None:
    here = Instance()
    lease = (await here.get("a", "aside", LEASING)).lease
    here.far.cell.down = True
    (written,) = await here.writer.put_many([(ASIDE, Draft(b"", lease=lease, release=Release.FAILED))])
    assert written.error is not None
    assert written.error.kind is ProblemKind.HOME_UNAVAILABLE


async def test_a_fill_with_a_foreign_tag_is_refused_and_gives_its_lease_back() -> None:
    here = Instance()
    lease = (await here.get("a", "aside", LEASING)).lease
    (written,) = await here.writer.put_many([(ASIDE, Draft(b"v", tags=("{x}:t",), lease=lease))])
    assert written.error is not None
    assert written.error.kind is ProblemKind.FOREIGN_TAG
    assert (await here.get("a", "aside", LEASING)).lease


async def _release(here: Instance, lease: str | None, why: Release = Release.FAILED) -> str:
    return (await here.writer.put(ASIDE, Draft(b"", lease=lease, release=why))).reason


# keys whose values cannot be kept -----------------------------------------------------------------


async def test_nobody_waits_for_the_load_of_a_key_whose_value_could_not_be_kept() -> None:
    far = FarSide()
    one, other = Instance(far, name="i0"), Instance(far, name="i1")
    far.loader.default = loaded(use=UNKEPT)
    for instance in (one, other):
        await instance.get("a")
    far.loader.hold()
    readers = [asyncio.create_task(instance.get("a")) for instance in (one, other)]
    await asyncio.wait_for(far.loader.called(4), 0.1)
    far.loader.release()
    assert [answer.outcome for answer in await asyncio.gather(*readers)] == [Outcome.LOADED] * 2
    assert one.tally.lease_waits + other.tally.lease_waits == 0
    assert one.tally.lease_waits_spared + other.tally.lease_waits_spared == 1


async def test_a_key_that_fails_is_not_such_a_key() -> None:
    """Loads that fail are made one at a time: their key may be kept the next time."""
    far = FarSide()
    one, other = Instance(far, name="i0"), Instance(far, name="i1")
    far.loader.script("a", OriginError("down"))
    await one.get("a")
    far.loader.hold()
    readers = [asyncio.create_task(instance.get("a")) for instance in (one, other)]
    await asyncio.sleep(0.5)
    far.loader.release()
    assert sorted(answer.outcome for answer in await asyncio.gather(*readers)) == [
        Outcome.HIT,
        Outcome.LOADED,
    ]


async def test_a_value_that_can_be_kept_again_ends_the_loads_beside_the_lease() -> None:
    far = FarSide()
    one, other = Instance(far, name="i0"), Instance(far, name="i1")
    far.loader.script("a", loaded(use=UNKEPT), loaded(use=UNKEPT))
    for instance in (one, other):
        await instance.get("a")
    assert (await one.get("a")).outcome is Outcome.LOADED
    assert (await other.get("a")).outcome is Outcome.HIT
    assert far.loader.loads("a") == 3


async def test_a_caller_hears_that_it_need_not_wait_and_loads() -> None:
    here = Instance()
    first = (await here.get("a", "aside", LEASING)).lease
    await _release(here, first, Release.UNKEPT)
    second = await here.get("a", "aside", LEASING)
    assert (second.lease is not None, second.unkept) == (True, False)
    third = await here.get("a", "aside", WAITING)
    assert (third.outcome, third.lease, third.unkept) == (Outcome.MISS, None, True)
    assert (await here.put("a", b"small", lease=second.lease)).stored
    await here.invalidate("a", ns="aside")
    assert (await here.get("a", "aside", LEASING)).lease
    assert not (await here.get("a", "aside", LEASING)).unkept


async def test_a_token_that_no_home_granted_takes_no_shelter_from_a_key() -> None:
    here = Instance()
    lease = (await here.get("a", "aside", LEASING)).lease
    await _release(here, "f00d:17", Release.UNKEPT)
    assert not (await here.get("a", "aside", LEASING)).unkept
    assert (await here.put("a", b"v", lease=lease)).stored


async def test_keys_are_remembered_for_so_long_and_so_many() -> None:
    unkept = Unkept()
    keys = [Key.of("docs", f"k{i}") for i in range(MOST_KEYS + 1)]
    for key in keys:
        unkept.note(key)
    assert len(unkept) == MOST_KEYS
    assert keys[0] not in unkept
    assert keys[1] in unkept
    unkept.forget(keys[1])
    assert keys[1] not in unkept
    await asyncio.sleep(REMEMBERED_SECONDS)
    assert keys[-1] not in unkept
