"""Measures what a cell that hangs costs the reads of other cells' keys.

    python -m loadtests.hung_cell --phases 8 --seconds 4

Real servers: an instance, no L2, an L1 of a single entry, and four cells, so that every read goes
to a cell. Reads arrive at a steady rate, whether or not the ones before are answered; one of four
is of a key of the last cell. In every other phase this cell is stopped with SIGSTOP. It prints

    others    p50 and p99 of the reads of other cells' keys: the medians of both kinds of phases,
              and their ratio
    own       reads of the cell's own keys that waited, per second, beginning a second after it
              was stopped
"""

import argparse
import asyncio
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, cycle
from pathlib import Path
from statistics import median, quantiles

import aiohttp
import yaml

from cachesvc.tiers.l3.placement import Placement
from loadtests.fleet import Fleet
from loadtests.fleet_topology import free_ports, one_region

CELLS = ("c1", "c2", "c3", "hung")
KEYS_PER_CELL = 200
NOTICED_SECONDS = 1.0
"""By then the cell is left alone."""
WAITED_SECONDS = 0.08
"""A read of an own key that took longer has waited for the cell (`l3.timeout` is 100 ms)."""


class Phase:
    """The seconds that reads took while the cell was in one state."""

    def __init__(self) -> None:
        self.others: list[float] = []
        self.own: list[float] = []
        """Without those of the first second."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--phases", type=int, default=8, help="Pairs of phases (default: 8).")
    options.add_argument("--seconds", type=float, default=4.0, help="Of each phase (default: 4).")
    options.add_argument("--rate", type=float, default=100.0, help="Reads per second (default: 100).")
    given = options.parse_args()
    document = one_region(("eu-a",))
    document["regions"]["eu"]["pool"] = {}
    document["cells"] = {
        name: {"region": "eu", "url": f"redis://127.0.0.1:{port}/0"}
        for name, port in zip(CELLS, free_ports(len(CELLS)), strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "document.yaml")
        source.write_text(yaml.safe_dump(document))
        with Fleet(source, Path(folder, "run"), environ={"CACHESVC_L1_MAX_ENTRIES": "1"}) as fleet:
            usual, stopped = asyncio.run(_measured(fleet, given.phases, given.seconds, given.rate))
    _report(usual, stopped, given.seconds)


async def _measured(
    fleet: Fleet, phases: int, seconds: float, rate: float
) -> tuple[Sequence[Phase], Sequence[Phase]]:
    """Returns the phases with all cells, and those with a stopped one, in their order."""
    others, own = _keys(fleet)
    usual, stopped = [], []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        base = f"{fleet.url('eu-a')}/v1/pages/"
        await asyncio.gather(*[_stored(http, base + key) for key in [*others, *own]])
        await _phase(http, base, others, own, seconds, rate)  # connections are opened
        for _ in range(phases):
            usual.append(await _phase(http, base, others, own, seconds, rate))
            fleet.cells["hung"].kill(signal.SIGSTOP)
            stopped.append(await _phase(http, base, others, own, seconds, rate))
            fleet.cells["hung"].kill(signal.SIGCONT)
            await asyncio.sleep(2.0)  # its breaker closes
    return usual, stopped


def _keys(fleet: Fleet) -> tuple[list[str], list[str]]:
    placement = Placement(fleet.topology)
    homes: dict[str, list[str]] = {name: [] for name in CELLS}
    for nth in range(2 * len(CELLS) * KEYS_PER_CELL):
        homes[placement.home(f"key-{nth}")].append(f"key-{nth}")
    *others, own = (keys[:KEYS_PER_CELL] for keys in homes.values())
    return list(chain.from_iterable(others)), own


async def _stored(http: aiohttp.ClientSession, url: str) -> None:
    status = 0
    while status != 204:
        with suppress(aiohttp.ClientError):
            async with http.put(url, data=b"v" * 200) as answer:
                status = answer.status


async def _phase(
    http: aiohttp.ClientSession, base: str, others: list[str], own: list[str], seconds: float, rate: float
) -> Phase:
    found = Phase()
    loop = asyncio.get_running_loop()
    first: list[float] = []
    began, turns = loop.time(), cycle([True, True, True, False])
    reading: list[asyncio.Task[None]] = []
    for nth in range(round(seconds * rate)):
        due = began + nth / rate
        if next(turns):
            keys, took = others, found.others
        else:
            keys, took = own, found.own if due - began >= NOTICED_SECONDS else first
        await asyncio.sleep(due - loop.time())
        reading.append(loop.create_task(_read(http, base + keys[nth % len(keys)], due, took)))
    await asyncio.gather(*reading)
    return found


async def _read(http: aiohttp.ClientSession, url: str, due: float, took: list[float]) -> None:
    async with http.get(url) as answer:
        await answer.read()
    took.append(asyncio.get_running_loop().time() - due)


def _report(usual: Sequence[Phase], stopped: Sequence[Phase], seconds: float) -> None:
    for name, of in (("p50", _p50), ("p99", _p99)):
        before, beside = (median(of(phase.others) for phase in phases) for phases in (usual, stopped))
        print(
            f"others: {name} {before * 1000:.2f} ms, beside a hung cell {beside * 1000:.2f} ms,"
            f" ratio {beside / before:.2f}"
        )
    waited = sum(one > WAITED_SECONDS for phase in stopped for one in phase.own)
    own = sum(len(phase.own) for phase in stopped)
    per_second = waited / ((seconds - NOTICED_SECONDS) * len(stopped))
    print(f"own: {waited} of {own} reads waited, {per_second:.2f} per second")


def _p50(took: list[float]) -> float:
    return median(took)


def _p99(took: list[float]) -> float:
    return quantiles(took, n=100)[98]


if __name__ == "__main__":
    main()
