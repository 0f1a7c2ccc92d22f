"""The SDK and a real instance that is stopped by SIGSTOP: its keys are answered by the others."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cachesvc_client import Cache, Unavailable

from loadtests.fleet import Fleet

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "config" / "two-regions.yaml"
KEYS = [f"sick-{nth}" for nth in range(60)]
TIMEOUT_SECONDS = 2.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(DOCUMENT, tmp_path_factory.mktemp("fleet") / "run", ports="free") as running:
        yield running


async def test_no_call_fails_while_an_instance_is_stopped_and_it_is_used_again_afterwards(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    loads: list[str] = []

    async def load(key: str) -> bytes:
        loads.append(key)
        return key.encode()

    async with Cache.from_url(fleet.url("eu-a"), default_timeout=TIMEOUT_SECONDS) as cache:
        pages = cache.namespace("pages")
        await pages.get("warm")
        while errands := cache._transport._errands:
            await asyncio.wait(errands)
        assert len(cache._region) > 1
        await pages.set_many({key: key.encode() for key in KEYS})
        stopped = fleet.instances["eu-b"]
        stopped.kill(signal.SIGSTOP)
        try:
            began = time.monotonic()
            for key in KEYS:
                assert not isinstance(await pages.lookup(key), Unavailable)
            for nth in range(20):
                assert await pages.get_or_load(f"new-{nth}", load) == b"new-%d" % nth
            await pages.delete(KEYS[0])
            took = time.monotonic() - began
        finally:
            stopped.kill(signal.SIGCONT)
        assert took < 2 * TIMEOUT_SECONDS, "two calls cost half of their time"
        assert len(loads) == 20
        assert caplog.text.count("is out of reach (no answers)") == 1
        while "answers again" not in caplog.text:
            for key in KEYS:
                await pages.lookup(key)
