"""The load of a noisy neighbour: requests for keys of one namespace, at a rate of its own.

    python -m loadtests.load.neighbour --url http://127.0.0.1:8101 --namespace noisy --rate 500 \\
      --keys scan:10000 --keys-each 100 --out neighbour.jsonl

An open loop: each request begins when it is due, whether the earlier ones were answered or not. It
is given up after a second. The process runs with a low priority, so that it takes no time from the
load generator whose latencies are measured. It ends at SIGTERM. `--out` gets a row for each second
(`judge_rows.NeighbourRow`).
"""

import argparse
import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from time import time
from urllib.parse import quote

import aiohttp
import msgspec
import uvloop

from loadtests.load.judge_rows import NeighbourRow
from loadtests.load.keys import Part, keys_of

MSGPACK = "application/msgpack"
TIMEOUT_SECONDS = 1.0
TICK_SECONDS = 0.002
TOO_LATE_SECONDS = 0.5
"""A request that is this late is not made; it counts as skipped."""
NICENESS = 10
UNANSWERED = "no answer in time"


class _Problem(msgspec.Struct):
    type: str = ""


class Rows:
    """The counts of each second, and the file that they are written to."""

    def __init__(self, path: Path, namespace: str) -> None:
        self._out = path.open("ab", buffering=0)
        self._namespace = namespace
        self._rows: dict[int, NeighbourRow] = {}

    def at(self, now: float) -> NeighbourRow:
        """The row of the second that `now` lies in."""
        return self._rows.setdefault(int(now), NeighbourRow(int(now), self._namespace))

    def write(self, now: float) -> None:
        """Writes the seconds that have ended."""
        for second in sorted(second for second in self._rows if second < int(now)):
            self._out.write(msgspec.json.encode(self._rows.pop(second)) + b"\n")

    def close(self) -> None:
        """Writes the remaining seconds."""
        self.write(time() + 1)
        self._out.close()


class Callers:
    """All callers of the namespace."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, keys: Iterator[str], keys_each: int, rows: Rows
    ) -> None:
        """`url` is that of the namespace."""
        self._session = session
        self._url = url
        self._keys = keys
        self._keys_each = keys_each
        self._rows = rows
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, rate: float, over: asyncio.Event) -> None:
        """Asks `rate` times a second until `over`."""
        rng, due = random.Random(1), time()
        while not over.is_set():
            now = time()
            while due <= now:
                self._begin(now, is_too_late=now - due > TOO_LATE_SECONDS)
                due += rng.expovariate(rate)
            self._rows.write(now)
            await asyncio.sleep(TICK_SECONDS)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, now: float, *, is_too_late: bool) -> None:
        row = self._rows.at(now)
        row.due += 1
        if is_too_late:
            row.skipped += 1
            return
        task = asyncio.create_task(self._one())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _one(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), self._request() as answer:
                answered = answer_of(answer.status, await answer.read())
        except TimeoutError:
            answered = UNANSWERED
        except aiohttp.ClientError as error:
            answered = type(error).__name__
        answers = self._rows.at(time()).by_answer
        answers[answered] = answers.get(answered, 0) + 1

    def _request(self) -> "aiohttp.client._RequestContextManager":
        keys = [next(self._keys) for _ in range(self._keys_each)]
        if self._keys_each == 1:
            return self._session.get(f"{self._url}/{quote(keys[0], safe='')}")
        body = msgspec.msgpack.encode({"keys": keys})
        return self._session.post(f"{self._url}:get", data=body, headers={"Content-Type": MSGPACK})


def answer_of(status: int, body: bytes) -> str:
    """The status, and the kind of the problem that the body describes, if it does."""
    if status < 400:
        return str(status)
    try:
        kind = msgspec.json.decode(body, type=_Problem).type.rpartition("/")[2]
    except msgspec.MsgspecError:
        kind = ""
    return f"{status} {kind}".rstrip()


async def _serve(options: argparse.Namespace) -> None:
    over, rows = asyncio.Event(), Rows(options.out, options.namespace)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    keys = (options.prefix + key for key in keys_of(options.keys, Part(), seed=1))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        callers = Callers(session, f"{options.url}/v1/{options.namespace}", keys, options.keys_each, rows)
        print(f"{options.namespace} asks {options.rate:g} times a second", flush=True)
        await callers.ask(options.rate, over)
    rows.close()


def main() -> None:
    """Asks until SIGTERM."""
    parser = argparse.ArgumentParser(prog="loadtests.load.neighbour", description="A noisy neighbour.")
    add = parser.add_argument
    add("--url", required=True, help="of one instance")
    add("--namespace", required=True)
    add("--keys", required=True, help="zipf:KEYS:EXPONENT, hot:KEY, scan:KEYS or trace:FILE")
    add("--prefix", default="", help="before each key")
    add("--rate", type=float, required=True, help="requests per second")
    add("--keys-each", type=int, default=1, help="keys in each request (%(default)s)")
    add("--out", type=Path, required=True, help="the file to which a row is added for each second")
    os.nice(NICENESS)
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
