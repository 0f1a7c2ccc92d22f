"""A real process under overload: one namespace asks for too much, another for little.

Judged by counts and shares alone: how busy the machine is makes no difference to who is refused.
"""

import asyncio
from pathlib import Path

import aiohttp

from loadtests.fair_overload import KEYS, TOPOLOGY, Load, Seen
from loadtests.fleet import Fleet

LOUD = 100
"""Callers that ask again as soon as they are answered; the quiet namespace has one."""


async def shed(url: str, session: aiohttp.ClientSession) -> dict[str, int]:
    """The requests that the instance says it has refused, by namespace."""
    async with session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    name = "cachesvc_namespace_requests_shed_total{"
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines if line.startswith(name)}


def part_refused(seen: Seen) -> float:
    return seen.refused / (seen.good + seen.refused)


async def overloaded(url: str) -> tuple[Seen, Seen, dict[str, int]]:
    """Returns the answers to the loud and the quiet namespace, and what was counted."""
    loud, quiet, is_over = Seen(), Seen(), asyncio.Event()
    async with aiohttp.ClientSession() as session:
        load = Load(url, KEYS[:500])
        for namespace in ("loud", "quiet"):
            await load.fill(namespace)

        async def ask_on(namespace: str, seen: Seen) -> None:
            while not is_over.is_set():
                await load.ask(namespace, seen)
                if loud.refused >= 200 and quiet.good >= 20:
                    is_over.set()

        async with asyncio.timeout(60):
            await asyncio.gather(ask_on("quiet", quiet), *(ask_on("loud", loud) for _ in range(LOUD)))
        load.close()
        return loud, quiet, await shed(url, session)


def test_the_one_that_asks_for_too_much_is_refused_and_not_the_other(tmp_path: Path) -> None:
    document = tmp_path / "topology.yaml"
    document.write_text(TOPOLOGY)
    environ = {"CACHESVC_L1_MAX_ENTRIES": "10", "CACHESVC_SERVER_MAX_DELAY": "20ms"}
    with Fleet(document, tmp_path / "run", environ=environ) as fleet:
        loud, quiet, counted = asyncio.run(overloaded(fleet.url("a")))
    assert counted["loud"] >= 200
    # A machine whose core is taken away at times refuses some of the quiet one's, too.
    assert part_refused(quiet) <= part_refused(loud) / 3, (str(loud), str(quiet))
    assert counted.get("quiet", 0) == quiet.refused
