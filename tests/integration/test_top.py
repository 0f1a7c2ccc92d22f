"""`cachesvc top --once` over two regions of real servers, in order, under load, and with things broken."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from loadtests.fleet import Fleet
from tests.doubles.waiting import until

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
TOKEN = "for-the-eyes-of-the-tests"
READS = 64 * 600
"""Of these keys, the share of one is known to within 2 % (one read in 64 is sampled)."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    environ = {"CACHESVC_TELEMETRY_DEBUG_TOKEN": TOKEN}
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", environ=environ) as running:
        yield running


def top(*more: str) -> list[str]:
    return [sys.executable, "-m", "cachesvc", "top", "--once", *more]


def by_document(fleet: Fleet) -> list[str]:
    return ["--topology", str(fleet.topology_path)]


def looked(*more: str) -> tuple[int, str]:
    run = subprocess.run(top(*more), capture_output=True, text=True, timeout=60, check=False)
    assert not run.stderr, run.stderr
    return run.returncode, run.stdout


def looked_until_healthy(fleet: Fleet) -> tuple[int, str]:
    """On a machine that is busy with eight processes starting, a server may miss a deadline of 100 ms once, and `top` says so."""
    for _ in range(10):
        code, text = looked(*by_document(fleet), "--interval", "300ms")
        if code == 0:
            break
    return code, text


def rows(text: str, first: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.split()[:1] == [first]]


async def looked_under_load(fleet: Fleet, *more: str) -> tuple[int, str]:
    """Looks while callers read and write at one instance and invalidate at another."""
    async with aiohttp.ClientSession() as http:
        for number in range(20):
            (
                await http.put(f"{fleet.url('eu-a')}/v1/pages/user:{number}", data=bytes(100 * number))
            ).release()
        asked: Counter[str] = Counter()
        callers = [
            asyncio.create_task(call_for_ever(fleet, http, random.Random(seed), asked)) for seed in range(4)
        ]
        await until("enough keys were read", lambda: asked.total() > READS, seconds=60)
        process = await asyncio.create_subprocess_exec(*top(*more), stdout=subprocess.PIPE)
        out, _ = await asyncio.wait_for(process.communicate(), 60)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def call_for_ever(
    fleet: Fleet, http: aiohttp.ClientSession, dice: random.Random, asked: Counter[str]
) -> None:
    """Every third key is `user:7`; `asked` counts the keys that were read."""
    reads = {"keys": [f"user:{7 if number % 3 == 0 else dice.randrange(20)}" for number in range(300)]}
    while True:
        async with http.post(f"{fleet.url('eu-a')}/v1/pages:get", json=reads) as answer:
            assert answer.status == 200
        asked.update(reads["keys"])
        async with http.delete(
            f"{fleet.url('us-a')}/v1/pages/user:19", headers={"Cachesvc-Caller": "ops/anna"}
        ) as answer:
            assert answer.status in (200, 202)


def test_a_deployment_in_order_is_healthy(fleet: Fleet) -> None:
    code, text = looked_until_healthy(fleet)
    assert code == 0, text
    assert text.startswith("healthy")
    for instance in fleet.instances:
        assert rows(text, instance)[0][1] == "ready"
    for name in (*fleet.memcached, *fleet.cells):
        assert rows(text, name)[0][1] == "answers"


async def test_under_load_it_says_who_is_asked_what(fleet: Fleet) -> None:
    _, text = await looked_under_load(fleet, "--url", fleet.url("us-b"), "--debug-token", TOKEN)
    assert "ops/anna" in text
    (hot,) = rows(text, "user:7")
    assert hot[1] == "pages"
    assert 25 < float(hot[2]) < 45, hot
    assert rows(text, "L1")[0][1] != "0", text


def test_keys_are_digests_without_the_token(fleet: Fleet) -> None:
    _, text = looked(*by_document(fleet), "--interval", "300ms")
    assert "hot key" in text
    assert "user:7" not in text


def test_a_wrong_token_shows_digests_and_says_why(fleet: Fleet) -> None:
    _, text = looked(*by_document(fleet), "--interval", "300ms", "--debug-token", "a-guess-of-some-length")
    assert "hot key (token refused at eu-a)" in text
    assert "user:7" not in text


def test_what_is_broken_is_the_verdict(fleet: Fleet) -> None:
    fleet.instances["eu-b"].stop()
    fleet.queues["us"].kill(signal.SIGKILL)
    try:
        code, text = looked(*by_document(fleet), "--interval", "3s")
    finally:
        fleet.queues["us"].start()
        fleet.instances["eu-b"].start()
    assert code == 1
    assert text.startswith("eu-b does not answer (connection refused)"), text
    assert ["eu-b", "silent"] in rows(text, "eu-b")
    assert "feed of us is" in text
    assert "above max_lag of" in text


def test_nobody_at_the_address_is_a_row(fleet: Fleet) -> None:
    code, text = looked("--url", "http://127.0.0.1:9", "--interval", "10ms")
    assert code == 1
    assert text.startswith("http://127.0.0.1:9 does not answer (connection refused)")
