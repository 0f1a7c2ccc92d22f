"""One key with 30 % of the reads among four instances: how busy is the busiest of them?

    python -m loadtests.hot_key --seconds 20

The servers are real, and so are the clients: SDKs in processes of their own. Each call reads three
keys, popular by rank (Zipf), and in nine of ten calls the hot key is one of them. It is run without
spreading and with it. Printed for each are the reads that every instance answered in the second
half of the time, and the ratio of the busiest to the mean.
"""

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import time
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from urllib.request import urlopen

import yaml
from cachesvc_client import Cache

from cachesvc.commands.top.exposition import Exposition
from loadtests.fleet import Fleet
from loadtests.fleet_topology import one_region

INSTANCES = ("a", "b", "c", "d")
CLIENTS = 6
"""Each makes one call at a time: equal keys of calls at once would share a request."""
TAIL = [f"key-{nth}" for nth in range(2000)]
WEIGHTS = list(accumulate(1 / (nth + 10) for nth in range(len(TAIL))))
HOT = "front-page"
DOCUMENT = one_region(INSTANCES, ttl="40m")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=20.0, help="Of each of the two runs (default: 20).")
    seconds = options.parse_args().seconds
    for share in ("0", "0.1"):
        reads, spread = measured(share, seconds)
        mean = sum(reads.values()) / len(reads)
        shown = ", ".join(f"{name} {count:.0f}" for name, count in sorted(reads.items()))
        print(
            f"hot_key_share {share}: {2 * sum(reads.values()) / seconds:.0f} reads/s; {shown}; "
            f"spread at {spread} of {len(reads)}; busiest / mean {max(reads.values()) / mean:.2f}"
        )


def measured(share: str, seconds: float) -> tuple[Mapping[str, float], int]:
    """The reads of each instance in the second half, and how many have hot keys then."""
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "document.yaml")
        document.write_text(yaml.safe_dump(DOCUMENT))
        environ = {"CACHESVC_SERVER_HOT_KEY_SHARE": share}
        with Fleet(document, Path(folder, "run"), environ=environ) as fleet:
            url = fleet.url("a")
            asyncio.run(_filled(url))
            callers = [
                multiprocessing.Process(target=_call, args=(url, seconds, seed)) for seed in range(CLIENTS)
            ]
            for caller in callers:
                caller.start()
            time.sleep(seconds / 2)
            before = {name: _reads(fleet.url(name))[0] for name in INSTANCES}
            for caller in callers:
                caller.join()
            after = {name: _reads(fleet.url(name)) for name in INSTANCES}
    reads = {name: count - before[name] for name, (count, _) in after.items()}
    return reads, sum(hot > 0 for _, hot in after.values())


def _reads(url: str) -> tuple[float, float]:
    with urlopen(f"{url}/metrics") as answer:
        metrics = Exposition.parse(answer.read().decode())
    reads = metrics.value("batch_keys_total", namespace="pages", operation="get_many")
    return reads or 0.0, metrics.value("keys_spread") or 0.0


async def _filled(url: str) -> None:
    async with Cache.from_url(url, default_timeout="10s") as cache:
        await cache.namespace("pages").set_many(dict.fromkeys((HOT, *TAIL), b"x" * 200))


def _call(url: str, seconds: float, seed: int) -> None:
    asyncio.run(_called(url, seconds, random.Random(seed)))


async def _called(url: str, seconds: float, rng: random.Random) -> None:
    until = time.monotonic() + seconds

    async with Cache.from_url(url, default_timeout="5s") as cache:
        pages = cache.namespace("pages")
        while time.monotonic() < until:
            keys = rng.choices(TAIL, cum_weights=WEIGHTS, k=3)
            if rng.random() < 0.9:
                keys[0] = HOT
            await pages.get_many(keys)


if __name__ == "__main__":
    main()
