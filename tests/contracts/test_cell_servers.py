"""Two servers behind one address, a replica that answers, keys that are deleted, twins."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis

from cachesvc.model.change import Target
from cachesvc.model.clock import SystemClock
from cachesvc.model.errors import TierError, TierUnavailableError
from cachesvc.tiers.l3.contract import Read, Reply
from cachesvc.tiers.l3.issuer import Issuer, twin_of
from cachesvc.tiers.l3.redis_cell import RedisCell
from tests.contracts.cell_benches import KEY, NS, SETTINGS, SKEW_US, CellBench, RedisBench, good, redis_bench
from tests.contracts.test_demotion import Address
from tests.doubles.servers import RealServer, redis_server, valkey_server
from tests.doubles.waiting import until


@pytest.fixture(scope="module", params=[redis_server, valkey_server])
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[RealServer, RealServer]]:
    with request.param(tcp=True) as a, request.param(tcp=True) as b:
        yield a, b


class Pair:
    """An address, and two servers that it may lead to."""

    def __init__(self, address: Address, a: RealServer, b: RealServer) -> None:
        self.address, self.a, self.b = address, a, b
        self.admin_of_a, self.admin_of_b = Redis.from_url(a.redis_url), Redis.from_url(b.redis_url)
        self.cells: list[RedisCell] = []

    def cell(self, url: str = "") -> CellBench:
        cell = RedisCell("c1", url or self.address.url, SETTINGS, SKEW_US, SystemClock())
        self.cells.append(cell)
        return RealBench(cell)

    async def in_step(self) -> None:
        """Server b is a replica of server a, and holds what it holds."""
        await self.admin_of_b.replicaof("127.0.0.1", str(self.a.port))
        await until("b is in step", self._is_in_step)

    async def _is_in_step(self) -> bool:
        told = await self.admin_of_b.info("replication")
        return bool(told["role"] == "slave" and told["master_link_status"] == "up")

    async def leave(self, bench: CellBench) -> None:
        """Has the cell's next exchange look the address up anew."""
        cell = bench.cell
        assert isinstance(cell, RedisCell)
        cell._connections._left_at = float("-inf")
        cell.look_again()


class RealBench(CellBench):
    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture
async def pair(servers: tuple[RealServer, RealServer]) -> AsyncIterator[Pair]:
    for server in servers:
        async with Redis.from_url(server.redis_url) as admin:
            await admin.replicaof("NO", "ONE")
            await admin.flushall()
    async with Address() as address:
        address.leads_to = servers[0]
        pair = Pair(address, *servers)
        yield pair
        for cell in pair.cells:
            await cell.stop()
        for admin in (pair.admin_of_a, pair.admin_of_b):
            await admin.replicaof("NO", "ONE")
            await admin.aclose()


async def test_a_fence_and_a_put_name_the_server_that_took_them(pair: Pair) -> None:
    here, there = pair.cell(pair.a.redis_url), pair.cell(pair.b.redis_url)
    await asyncio.gather(here.settle(), there.settle())
    (a,), (b,) = [await bench.cell.fence_many([Target.key(NS, "a")], soft=False) for bench in (here, there)]
    assert good(a).issuer == here.cell.issuer != 0
    assert good(b).issuer == there.cell.issuer != here.cell.issuer
    assert (await here.put(await here.entry())).issuer == here.cell.issuer
    assert (await here.state()).issuer == here.cell.issuer


async def test_the_databases_of_one_server_are_two(pair: Pair) -> None:
    url = pair.a.redis_url.removesuffix("/0")
    here, there = pair.cell(f"{url}/0"), pair.cell(f"{url}/1")
    await asyncio.gather(here.settle(), there.settle())
    assert here.cell.issuer != there.cell.issuer


async def test_a_server_vouches_only_for_what_was_loaded_since_it_was_met(pair: Pair) -> None:
    """The address leads to a, to an empty b, and back to a, which did not hear of b's fence."""
    bench = pair.cell()
    await bench.settle()
    await bench.fill(b"0")
    assert (await bench.read()).exact
    a = bench.cell.issuer
    pair.address.leads_to = pair.b
    await pair.leave(bench)
    await bench.settle()
    assert bench.cell.issuer != a
    assert (await bench.read()).entry is None
    await bench.fence()
    pair.address.leads_to = pair.a
    await pair.leave(bench)
    back = await bench.read()
    assert bench.cell.issuer == a
    assert back.entry is not None
    assert not back.exact, "b's fence is unknown to a"
    await bench.settle()
    await bench.fill(b"1")
    assert (await bench.read()).exact


async def test_a_reply_over_a_connection_to_the_server_before_is_not_exact(pair: Pair) -> None:
    """It was on its way when another connection found another server."""
    bench = pair.cell()
    await bench.settle()
    await bench.fill(b"0")
    pair.a.pause()
    asking = asyncio.create_task(bench.read())
    await asyncio.sleep(0.05)
    pair.address.leads_to = pair.b
    cell = bench.cell
    assert isinstance(cell, RedisCell)
    other = await cell._connections.borrow()
    await cell._connections.give_back(other)
    pair.a.resume()
    reply = await asking
    assert reply.entry is not None
    assert not reply.exact


async def test_a_demoted_server_answers_no_hits_over_the_connections_that_it_has(pair: Pair) -> None:
    """Its link to the new primary is down, so it keeps its copies; a hit has nothing to write."""
    bench = pair.cell()
    await bench.settle()
    await bench.fill(b"0")
    assert (await bench.read(lease=False)).exact
    await pair.admin_of_a.replicaof("127.0.0.1", "1")
    (reply,) = await bench.cell.read_many([Read(KEY)])
    assert isinstance(reply, TierUnavailableError)
    assert "read only replica" in reply.why
    (reply,) = await bench.cell.read_many([Read(KEY)])
    assert isinstance(reply, TierUnavailableError)
    assert "its role is slave" in reply.why or "not tried" in reply.why
    pair.address.leads_to = pair.b
    await until("the other server is found", lambda: found(bench))


async def found(bench: CellBench) -> bool:
    (reply,) = await bench.cell.read_many([Read(KEY)])
    return isinstance(reply, Reply)


async def test_data_that_came_back_from_a_replica_are_not_vouched_for_by_the_run_id_alone(
    pair: Pair,
) -> None:
    """a → b (without a fence) → a, and nobody attached to b: a finds its own run id in meta."""
    bench = pair.cell()
    await bench.settle()
    await bench.fill(b"0", tags=("t",))
    await pair.in_step()
    await pair.admin_of_b.replicaof("NO", "ONE")
    await bench.fence(Target.tag(NS, "t"))
    await pair.admin_of_a.replicaof("127.0.0.1", str(pair.b.port))
    await until("a has b's data", lambda: _follows(pair.admin_of_a))
    await pair.admin_of_a.replicaof("NO", "ONE")
    again = pair.cell()
    await again.settle()
    await again.pass_time(0.1)
    reply = await again.read()
    assert reply.entry is not None, "its fence is lost"
    assert not reply.exact


async def _follows(admin: Redis) -> bool:
    told = await admin.info("replication")
    return bool(told.get("master_link_status") == "up")


async def test_an_idle_instance_asks_which_server_it_has(pair: Pair) -> None:
    """By the report that is asked for every 10 s: no exchange told it of the demotion."""
    bench = pair.cell()
    await bench.settle()
    assert isinstance(bench.cell, RedisCell)
    await bench.cell.report()
    before = bench.cell.issuer
    await pair.admin_of_a.replicaof("127.0.0.1", "1")
    with pytest.raises(TierUnavailableError, match="its role is slave"):
        await bench.cell.report()
    await pair.admin_of_a.replicaof("NO", "ONE")
    await asyncio.sleep(0.15)
    await bench.cell.report()
    assert bench.cell.issuer != before, "it was a replica in between"


# keys that are deleted ------------------------------------------------------------------------------

Loss = Callable[[Redis], Awaitable[object]]


async def _rename_soft(admin: Redis) -> None:
    await admin.rename("soft", "fences")


LOSSES: dict[str, Loss] = {
    "DEL fences": lambda admin: admin.delete("fences"),
    "DEL soft": lambda admin: admin.delete("soft"),
    "DEL meta": lambda admin: admin.delete("meta"),
    "HDEL meta issues_from": lambda admin: admin.hdel("meta", "issues_from"),
    "HDEL meta broken_at": lambda admin: admin.hdel("meta", "broken_at"),
    "HDEL meta marker": lambda admin: admin.hdel("meta", "marker"),
    "RENAME fences": lambda admin: admin.rename("fences", "elsewhere"),
    "RENAME soft fences": _rename_soft,
    "ZREMRANGEBYRANK fences": lambda admin: admin.zremrangebyrank("fences", 0, -1),
    "FLUSHALL": lambda admin: admin.flushall(),
    "SWAPDB": lambda admin: admin.swapdb(0, 7),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[RealServer]:
    with redis_server(tcp=True) as running:
        yield running


@pytest.fixture
async def bench(alone: RealServer) -> AsyncIterator[RedisBench]:
    async with redis_bench(alone) as found:
        yield found


@pytest.mark.parametrize("first", ["read", "fill", "put", "fence", "renew"])
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_cell_that_lost_a_key_begins_anew_and_says_so(
    bench: RedisBench, loss: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever script comes first; the copies that are left are judged by the readers."""
    _, token = await bench.fill(b"0", tags=("t",))
    await bench.fence(Target.tag(NS, "t"), Target.tag(NS, "u"))
    broken_at = (await bench.state()).broken_at
    await LOSSES[loss](bench.admin)
    with caplog.at_level(logging.WARNING):
        match first:
            case "read":
                assert (await bench.read()).entry is None
            case "fill":
                assert not await bench.try_fill(token, await bench.entry(b"1"))
            case "put":
                with pytest.raises(TierError, match="new issuer waits"):
                    await bench.put(await bench.entry(b"1"))
            case "fence":
                with pytest.raises(TierError, match="new issuer waits"):
                    await bench.fence()
            case _:
                assert list(await bench.cell.renew_many([(KEY, token, 1000)])) == [False]
    assert bench.redis.statistics().losses == 1
    assert "cell c1 has lost its fences or its meta record: it begins anew" in caplog.text
    assert (await bench.state()).broken_at > broken_at
    await bench.settle()
    left = await bench.read(lease=False)
    assert left.entry is None or not left.exact
    await bench.fill(b"1", tags=("t",))
    assert (await bench.read()).exact
    assert bench.redis.statistics().losses == 1


@pytest.mark.parametrize("name", [b"v:" + KEY.id, b"l:" + KEY.id])
async def test_losing_a_copy_or_a_lease_is_a_miss_and_no_loss(bench: RedisBench, name: bytes) -> None:
    await bench.fill(b"0")
    await bench.read(refresh=True)
    await bench.admin.delete(name)
    reply = await bench.read(refresh=True)
    assert (reply.entry is None) is name.startswith(b"v:")
    assert (reply.lease is None) is name.startswith(b"v:"), "the lease is held, or was deleted"
    assert bench.redis.statistics().losses == 0


# one server under two addresses ---------------------------------------------------------------------


async def test_two_cells_on_one_server_are_refused_with_both_names(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    issuers: dict[str, Issuer] = {}
    urls = {"c1": pair.a.redis_url, "c2": pair.address.url, "c3": pair.b.redis_url}
    cells = {
        name: RedisCell(name, url, SETTINGS, SKEW_US, SystemClock(), issuers=issuers)
        for name, url in urls.items()
    }
    pair.cells += cells.values()
    with caplog.at_level(logging.WARNING):
        answers = {name: (await cell.read_many([Read(KEY)]))[0] for name, cell in cells.items()}
    why = "cells c1 and c2 are one server under two addresses"
    assert isinstance(answers["c2"], TierUnavailableError)
    assert answers["c2"].why == why
    assert [isinstance(answers[name], Reply) for name in ("c1", "c3")] == [True, True]
    assert {name: cell.refusal for name, cell in cells.items()} == {"c1": "", "c2": why, "c3": ""}
    assert why in caplog.text
    pair.address.leads_to = pair.b
    await asyncio.sleep(0.15)
    await cells["c2"].read_many([Read(KEY)])
    assert cells["c2"].refusal == "cells c3 and c2 are one server under two addresses"


def test_a_cell_is_no_twin_of_itself_or_of_one_that_was_never_met() -> None:
    issuers = {"c1": Issuer(1), "c2": Issuer(1)}
    issuers["c1"].meet(5, 0)
    assert twin_of("c1", 5, issuers) == ""
    assert twin_of("c2", 5, issuers) == "c1"
    assert twin_of("c2", 6, issuers) == ""
