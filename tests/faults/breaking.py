"""The faults of the drills, and how each is undone.

Each function makes sure that its fault was a real one: old bytes are there, or a tail is gone.
The faults are used with every protection in place (nothing may happen) and without one (the
checker has to notice).
"""

import asyncio
import os

from redis.asyncio import Redis

from loadtests.fleet_servers import cell_server, queue_server
from loadtests.fleet_topology import free_ports
from tests.faults.arena import MAX_LAG_SECONDS
from tests.faults.contents import Memcached, at_home_in, on_memcached, records
from tests.faults.drill import Drill, until
from tests.faults.links import Links
from tests.faults.proxy import Mode

LONG = 2 * MAX_LAG_SECONDS
"""The duration of a fault that is longer than the staleness bound."""


# any server ---------------------------------------------------------------------------------------


async def kill(running: Drill, server: str, *, seconds: float = MAX_LAG_SECONDS) -> None:
    """Kills the server, and starts it again with the data on its disk.

    Only a queue has such data.
    """
    with running.fault(f"{server} killed"):
        running.arena.kill(server)
        await running.written(seconds=seconds)
        await running.arena.start(server)


async def stop(running: Drill, server: str, *, seconds: float = LONG) -> None:
    """Stops the server with SIGSTOP, and continues it with SIGCONT."""
    with running.fault(f"{server} stopped"):
        running.arena.pause(server)
        await running.written(seconds=seconds)
        running.arena.resume(server)


async def cut_off(running: Drill, link: str, mode: Mode, *, seconds: float = LONG) -> None:
    """Breaks a link for a while."""
    with running.fault(f"{link} {mode}"), running.arena.links.broken(link, mode=mode):
        await running.written(seconds=seconds)


# memcached ----------------------------------------------------------------------------------------


async def cut_off_memcached(running: Drill, name: str, link: str, mode: Mode) -> None:
    """Cuts memcached off; it comes back with the entries that it held at that moment.

    With mode `hold`, commands that were sent meanwhile arrive after that.
    """
    with running.fault(f"memcached {name} cut off"), running.arena.links.broken(link, mode=mode):
        await running.written(seconds=LONG)
        await memcached_holds_old_content(running, name)


async def replace_memcached_by_an_old_copy(running: Drill, name: str, link: str) -> None:
    """Replaces memcached by another process on the same port that holds the earlier items."""
    server = f"memcached-{name}"
    memcached = Memcached(running.arena.fleet.port(server))
    old = await memcached.items(on_memcached(running.arena.fleet.topology, name, running.keys()))
    with running.fault(f"memcached {name} replaced"), running.arena.links.broken(link):
        running.arena.kill(server)
        await running.written()
        await running.arena.start(server)
        await memcached.put(old)
        await memcached_holds_old_content(running, name)


async def memcached_holds_old_content(running: Drill, name: str) -> None:
    """Waits until memcached holds at least two values that were written over.

    The server itself is asked. An instance that believes it would read old values.
    """
    fleet = running.arena.fleet
    memcached = Memcached(fleet.port(f"memcached-{name}"))

    async def is_a_trap() -> bool:
        held = await memcached.entries(on_memcached(fleet.topology, name, running.keys()))
        return len(running.outdated(held)) >= 2

    await until(f"two keys that memcached {name} holds are written over", is_a_trap)


# cells --------------------------------------------------------------------------------------------


async def flush(running: Drill, cell: str) -> None:
    """Deletes all data of a cell."""
    async with running.arena.redis(f"cell-{cell}") as redis:
        with running.fault(f"cell {cell} flushed"):
            assert await redis.exists("meta")
            await redis.flushall()


async def promote_a_lagging_replica(running: Drill, cell: str) -> None:
    """Replaces a cell by a replica that lags.

    Replication is cut, keys are written, the primary is killed, and the replica takes its place at
    its port. In the cell's own region the pool and one instance are restarted: while L1 and L2 are
    full, nothing would ask the replica.
    """
    arena = running.arena
    region = arena.fleet.topology.cells[cell].region
    if not arena.server(f"cell-{cell}").is_running:
        arena.dismiss_guests()  # an earlier drill's replica has the cell's place
        await arena.start(f"cell-{cell}")
    emptied = [
        *(f"memcached-{name}" for name in arena.fleet.topology.regions[region].pool),
        f"instance-{region}-b",
    ]
    primary = arena.fleet.port(f"cell-{cell}")
    port, through = free_ports(2)
    link = Links({"replication": (through, primary)}, arena.fleet.run_dir)
    await arena.start_guest(link.process)
    await arena.start_guest(cell_server("replica", port, arena.fleet.run_dir))
    async with Redis(port=port, protocol=3, socket_timeout=5) as replica:
        await replica.replicaof("127.0.0.1", str(through))
        await until("the replica is in step", lambda: is_in_step(replica))
        with running.fault(f"cell {cell} replaced by a lagging replica"):
            with link.broken("replication", mode="lose"):
                await running.written()
                await until(
                    "a key that the replica holds is written over",
                    lambda: holds_old_content(running, cell, replica),
                )
                arena.kill(f"cell-{cell}")
            await replica.replicaof("NO", "ONE")
            for server in emptied:
                arena.kill(server)
            await replica.config_set("port", primary)
            await asyncio.gather(*(arena.start(server) for server in emptied))


async def split(
    running: Drill,
    cell: str,
    region: str,
    *,
    resets: bool = True,
    seconds: float = LONG,
) -> None:
    """Lets a region reach a promoted replica of a cell, and the other one the old primary.

    Both are masters and take writes. Afterwards the region reaches the old primary again, which has not
    heard of what the other server applied. `resets`: the region's connections are reset when the name
    moves; else they stay where they lead.
    """
    arena = running.arena
    (port,) = free_ports(1)
    await arena.start_guest(cell_server("standby", port, arena.fleet.run_dir))
    link = f"{region}:cell-{cell}"
    async with Redis(port=port, protocol=3, socket_timeout=5) as standby:
        await standby.replicaof("127.0.0.1", str(arena.fleet.port(f"cell-{cell}")))
        await until("the replica is in step", lambda: is_in_step(standby))
        await standby.replicaof("NO", "ONE")
        with running.fault(f"cell {cell} split: {region} reaches a promoted replica"):
            with arena.links.leading(link, to=port, resets=resets):
                await running.written(seconds=seconds)
                if resets:
                    await until("the replica is used", lambda: takes_calls(standby))
            await running.written(seconds=seconds / 2)
    arena.dismiss_guests()


async def flap(running: Drill, cell: str, region: str, *, times: int = 6) -> None:
    """Lets a cell's name lead a region to an empty server and back, again and again."""
    arena = running.arena
    (port,) = free_ports(1)
    await arena.start_guest(cell_server("standby", port, arena.fleet.run_dir))
    with running.fault(f"cell {cell} flaps to an empty server and back {times} times"):
        for _ in range(times):
            with arena.links.leading(f"{region}:cell-{cell}", to=port):
                await running.written(seconds=0.4)
            await running.written(seconds=0.4)
    arena.dismiss_guests()


async def takes_calls(server: Redis) -> bool:
    """True if instances call scripts of the server."""
    return "cmdstat_evalsha" in await server.info("commandstats")


async def holds_old_content(running: Drill, cell: str, replica: Redis) -> bool:
    """True if the replica holds a copy that was written over."""
    held = await records(replica, at_home_in(running.arena.fleet.topology, cell, running.keys()))
    return bool(running.outdated(held))


async def is_in_step(replica: Redis) -> bool:
    """True if the replica has all data of its primary."""
    told = await replica.info("replication")
    return bool(told["master_link_status"] == "up")


# queues -------------------------------------------------------------------------------------------


async def stop_queues(running: Drill, *regions: str) -> None:
    """Stops the queues of these regions.

    If these are all regions, nothing takes any change, and every write is news that no instance can
    have.
    """
    with running.fault(f"queues of {' and '.join(regions)} stopped"):
        for region in regions:
            running.arena.pause(f"queue-{region}")
        await running.written(seconds=3 * MAX_LAG_SECONDS)
        await nobody_is_sure(running)
        for region in regions:
            running.arena.resume(f"queue-{region}")


async def nobody_is_sure(running: Drill) -> None:
    """Asserts that every instance knows that it may be staler than `max_lag`."""
    for instance in running.arena.fleet.instances:
        assert await running.arena.counted(instance, "cachesvc_staleness_bound_seconds") > MAX_LAG_SECONDS


async def lose_the_tail(running: Drill, region: str) -> None:
    """Takes the last changes away from a queue, after they were accepted.

    A failover to a replica that lags has this effect. The region's own instances are cut off from the
    queue meanwhile, because they would otherwise take every change before it is lost. They are cut
    off only briefly: after `max_lag` they would doubt every copy anyway, and replace it.
    """
    arena, queue = running.arena, f"queue-{region}"
    (log,) = (arena.fleet.run_dir / queue / "appendonlydir").glob("*.incr.aof")
    async with arena.redis(queue) as redis:
        with running.fault(f"queue of {region} loses its tail"), arena.links.broken(f"{region}:{queue}"):
            kept = log.stat().st_size
            await until("a change waits that nobody takes", lambda: has_items(redis, "changes", 1))
            newest = (await redis.xinfo_stream("changes"))["last-generated-id"]
            arena.kill(queue)
            os.truncate(log, kept)
            await arena.start(queue)
            assert not await redis.xrange("changes", newest, newest), "no tail was lost"


async def fail_over_and_back(running: Drill, region: str, *, seconds: float = LONG) -> None:
    """Leads the name of a queue to its replica, which is promoted, and later back.

    The old server lives, follows the new one, and keeps its connections.
    """
    arena, (port,) = running.arena, free_ports(1)
    await arena.start_guest(queue_server("replica", port, arena.fleet.run_dir))
    first_port, links = arena.fleet.port(f"queue-{region}"), arena.links.to(f"queue-{region}")
    async with (
        Redis(port=first_port, protocol=3, socket_timeout=5) as first,
        Redis(port=port, protocol=3, socket_timeout=5) as second,
    ):
        await second.replicaof("127.0.0.1", str(first_port))
        await until("the replica is in step", lambda: is_in_step(second))
        with running.fault(f"queue of {region} failed over and back"):
            with arena.links.leading(*links, to=port, resets=False):
                await second.replicaof("NO", "ONE")
                await first.replicaof("127.0.0.1", str(port))
                await running.written(seconds=seconds)
                await until("the old server is in step", lambda: is_in_step(first))
                await first.replicaof("NO", "ONE")
            await second.replicaof("127.0.0.1", str(first_port))
            await running.written(seconds=seconds)


async def split_queue(running: Drill, region: str, other: str, *, seconds: float = LONG) -> None:
    """Lets another region read a promoted replica of a queue, while the region uses the old primary.

    Both are masters and take writes. Afterwards the other region reads the old primary again.
    """
    arena, (port,) = running.arena, free_ports(1)
    await arena.start_guest(queue_server("replica", port, arena.fleet.run_dir))
    async with Redis(port=port, protocol=3, socket_timeout=5) as replica:
        await replica.replicaof("127.0.0.1", str(arena.fleet.port(f"queue-{region}")))
        await until("the replica is in step", lambda: is_in_step(replica))
        await replica.replicaof("NO", "ONE")
        with running.fault(f"queue of {region} split: {other} reads a promoted replica"):
            with arena.links.leading(f"{other}:queue-{region}", to=port):
                await running.written(seconds=seconds)
                await until("the replica is used", lambda: takes_calls(replica))
            await running.written(seconds=seconds / 2)
    arena.dismiss_guests()


async def trim_changes(running: Drill, region: str) -> None:
    """Trims accepted changes away before anybody has taken them, as a producer's MAXLEN does."""
    arena, queue = running.arena, f"queue-{region}"
    async with arena.redis(queue) as redis:
        with running.fault(f"changes of {region} trimmed"), arena.links.broken(f"{region}:{queue}"):
            await until("a change waits that nobody takes", lambda: has_items(redis, "changes", 1))
            assert await redis.xtrim("changes", maxlen=0, approximate=False)


async def has_items(redis: Redis, stream: str, count: int) -> bool:
    """True if the stream has at least `count` items."""
    return bool(await redis.xlen(stream) >= count)


async def trim_fences_past(
    running: Drill, instance: str, region: str, *, seconds: float = MAX_LAG_SECONDS / 2
) -> None:
    """Stops the instance; when it goes on, the fences that it has not read are gone.

    It is stopped only briefly: after `max_lag` it would doubt every copy anyway. What the queue pushes
    would wait for it in its socket, so its subscription ends, as those of all others do.
    """
    arena = running.arena
    async with arena.redis(f"queue-{region}") as redis:
        with running.fault(f"fences of {region} trimmed past {instance}"), running.stopped(instance):
            await redis.client_kill_filter(_type="pubsub")
            await running.written(seconds=seconds)
            await redis.xtrim("fences", maxlen=1, approximate=False)


async def stop_instance(running: Drill, instance: str, *, seconds: float = LONG) -> None:
    """Stops the instance for a while."""
    with running.fault(f"{instance} stopped"), running.stopped(instance):
        await running.written(seconds=seconds)


# links --------------------------------------------------------------------------------------------


async def reset_again_and_again(running: Drill, *links: str, times: int = 20) -> None:
    """Resets the connections of these links again and again.

    They are reset while they are idle, in use, and as soon as they are opened; in between they work.
    """
    with running.fault(f"{', '.join(links)} reset {times} times"):
        for _ in range(times):
            with running.arena.links.broken(*links):
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.1)
