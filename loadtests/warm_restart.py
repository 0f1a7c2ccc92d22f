"""Measures the worth of a snapshot of L1: hits before a restart, and after it.

    python -m loadtests.warm_restart

The start is once warm and once cold. The servers are real, and memcached is warm in both cases. An
SDK reads keys that are popular by rank (Zipf), many more than L1 holds. Each line has the share of
the look-ups in L1 that hit, among the first reads after the start.
"""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import yaml
from cachesvc_client import Cache

from loadtests.fleet import Fleet
from loadtests.workers import READ_KEYS, READS_PER_CALL, Host, document, looked_up, store

WINDOWS = (1_000, 5_000, 20_000)
"""Reads since the start, at the end of each line."""
WARMING_READS = 30_000


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, snapshots = Path(folder, "document.yaml"), Path(folder, "snapshots")
        source.write_text(yaml.safe_dump(document(1)))
        settings = {"CACHESVC_L1_BUDGET": "8MiB", "CACHESVC_L1_SNAPSHOT_DIRECTORY": str(snapshots)}
        with Fleet(source, Path(folder, "run"), with_instances=False) as fleet:
            host = Host(fleet, 1, settings)
            reads = _reads()
            with host:
                asyncio.run(store(host, KEYS))
                asyncio.run(_hits(host, reads, (WARMING_READS,)))
                before = asyncio.run(_hits(host, reads, WINDOWS))
            with host:
                warm = asyncio.run(_hits(host, reads, WINDOWS))
            for file in snapshots.iterdir():
                file.unlink()
            with host:
                cold = asyncio.run(_hits(host, reads, WINDOWS))
    print("reads    before    warm    cold    warm/before    cold/before")
    for window, *hits in zip(WINDOWS, before, warm, cold, strict=True):
        was, now, bare = hits
        ratios = f"{now / was:11.3f}    {bare / was:11.3f}"
        print(f"{window:6,}    {was:.3f}    {now:.3f}   {bare:.3f}    {ratios}")


KEYS = [f"read-{nth}" for nth in range(READ_KEYS)]


def _reads() -> Iterator[list[str]]:
    weights, rng = list(accumulate(1 / (nth + 1) ** 0.99 for nth in range(READ_KEYS))), random.Random(7)
    while True:
        yield rng.choices(KEYS, cum_weights=weights, k=READS_PER_CALL)


async def _hits(host: Host, reads: Iterator[list[str]], windows: tuple[int, ...]) -> list[float]:
    """Returns the share of look-ups that hit, since now, after each of these numbers of reads."""
    found, done = [], 0
    before = await asyncio.to_thread(looked_up, host)
    async with Cache.from_url(host.url, default_timeout="10s") as cache:
        pages = cache.namespace("pages")
        for window in windows:
            while done < window:
                await pages.get_many(next(reads))
                done += READS_PER_CALL
            after = await asyncio.to_thread(looked_up, host)
            found.append((after[0] - before[0]) / (after[1] - before[1]))
    return found


if __name__ == "__main__":
    main()
