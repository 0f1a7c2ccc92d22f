"""Long work on the loop is cut into turns, however fast the machine is."""

import asyncio
from itertools import count

import pytest

from cachesvc.app import paced as module
from cachesvc.app.origins import Origins
from cachesvc.app.paced import LONGEST_SECONDS, paced
from cachesvc.app.tasks import Tasks
from cachesvc.config.service import Service
from cachesvc.config.topology import Namespace, Origin
from cachesvc.model.clock import SystemClock
from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.l1.l1 import L1

pytestmark = pytest.mark.looptime


class Turns:
    """Counts the turns of the loop while the block runs."""

    def __init__(self) -> None:
        self.count = 0

    async def __aenter__(self) -> "Turns":
        self._counting = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counting.cancel()

    async def _run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


async def test_the_loop_turns_when_the_work_of_a_turn_is_long() -> None:
    moments = count(step=LONGEST_SECONDS / 4)
    async with Turns() as turns:
        assert [item async for item in paced(range(100), lambda: next(moments))] == [*range(100)]
    assert 15 < turns.count < 25


async def test_short_work_is_done_in_one_turn() -> None:
    async with Turns() as turns:
        assert [item async for item in paced(range(100), lambda: 0.0)] == [*range(100)]
    assert turns.count <= 1


async def test_origins_that_come_or_change_are_made_ready_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", -1.0)
    tasks = Tasks()
    origins = Origins(Service(region="eu"), {}, SystemClock(), tasks, None)
    for ttl_path in ("a", "b"):
        namespaces = {
            f"n{nth}": Namespace(owner="web", origin=Origin(url=f"http://origin/{ttl_path}/{{key}}"))
            for nth in range(50)
        }
        async with Turns() as turns:
            await origins.prepare(namespaces)
        assert turns.count >= 50
        origins.take(namespaces)
    async with Turns() as turns:
        await origins.prepare(namespaces)
    assert turns.count <= 1, "nothing is made ready for what stays as it is"
    origins.take({})
    assert len(origins.loaders) == 50, "a load may still run"
    await asyncio.sleep(3600)
    assert not origins.loaders
    assert not [*origins.breakers.items()]


def test_the_copies_of_a_namespace_are_dropped_shard_by_shard() -> None:
    l1 = L1(1 << 28, 1 << 17, SystemClock())
    now = SystemClock().now_us()
    for nth in range(100):
        for namespace in ("pages", "pages-2"):
            l1.put(Key.of(namespace, f"k{nth}"), Entry(value=b"0", as_of=now, fresh_until=now + 60_000_000))
    steps = [*l1.drop("pages")]
    assert (len(steps), sum(steps)) == (4, 100)
    assert {name: one.items for name, one in l1.by_namespace().items()} == {"pages": 0, "pages-2": 100}
