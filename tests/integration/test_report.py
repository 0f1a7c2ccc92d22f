"""`cachesvc report namespaces` of a service that has been asked a few things."""

import json
import subprocess
import sys

from cachesvc_client import Cache


async def load(key: str) -> bytes:
    return b"value"


def reported(*more: str) -> str:
    argv = [sys.executable, "-m", "cachesvc", "report", "namespaces", *more]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert not run.stderr
    return run.stdout


async def test_a_report_has_what_was_asked_of_a_namespace(url: str) -> None:
    async with Cache.from_url(url) as cache:
        pages = cache.namespace("pages")
        for nth in range(200):
            await pages.get_or_load(f"key-{nth}", load)
            await pages.get(f"key-{nth}")
        await pages.invalidate(["key-1"])
        await pages.get("key-1")
    report = json.loads(reported("--json", "--url", url))
    (found,) = [one for one in report["namespaces"] if one["namespace"] == "pages"]
    assert report["silent"] == {}
    assert "SHARDS" in report["method"]
    assert found["reads"] >= 401, "an early load asks for a lease as well"
    assert found["loads_avoided"] >= 200
    assert found["loads"] == found["reads"] - found["loads_avoided"]
    assert found["hit_ratio"] == found["answered_by"]["l1"] == found["loads_avoided"] / found["reads"]
    assert found["l1_bytes"] > 199 * 475
    text = reported("--url", url)
    assert "loads avoided" in text
    assert "Horvitz-Thompson" in text
