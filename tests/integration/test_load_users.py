"""The load, by a real locust process, against a stand-in of the service that counts what it is asked and never forgets to lie.

It answers every read from its first version, whatever was invalidated: so a staleness that the load does not see is a bug here.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from loadtests.documents import document
from loadtests.fleet_topology import free_ports
from loadtests.origin import ReferenceOrigin

pytestmark = pytest.mark.slow

LOCUST = (sys.executable, "-m", "locust", "-f", "loadtests/load/locustfile.py")
MSGPACK = "application/msgpack"


class StandIn:
    """One instance of the service, with L1 hits for all there is."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.is_overloaded = False
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/docs/{key}", self._get)
        app.router.add_post("/v1/docs:get", self._get_many)
        app.router.add_post("/v1/invalidations", self._invalidate)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.Response:
        self.asked["GET"] += 1
        if self.is_overloaded:
            problem = {"type": "https://cachesvc.dev/problems/overloaded", "status": 503}
            return web.json_response(problem, status=503, content_type="application/problem+json")
        headers = {"Cache-Status": "cachesvc-l1; hit; ttl=9", "Cachesvc-Lag": "0.250"}
        return web.Response(body=document(request.match_info["key"], 1, 100), headers=headers)

    async def _get_many(self, request: web.Request) -> web.Response:
        self.asked[":get"] += 1
        keys = msgspec.msgpack.decode(await request.read())["keys"]
        results: list[dict[str, Any]] = [
            {"outcome": "hit", "tier": "l2", "value": document(key, 1, 100)} for key in keys
        ]
        if len(keys) == 100:
            results[0] = {"outcome": "error", "problem": {"status": 503}}
        return web.Response(
            body=msgspec.msgpack.encode({"results": results, "lag": 0.75}), content_type=MSGPACK
        )

    async def _invalidate(self, request: web.Request) -> web.Response:
        self.asked["invalidate"] += 1
        assert (await request.json())["namespace"] == "docs"
        return web.json_response({"id": "eu:1-0", "token": "", "applied": True})


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    service = StandIn()
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def origin() -> AsyncIterator[ReferenceOrigin]:
    origin = ReferenceOrigin()
    await origin.start()
    yield origin
    await origin.stop()


class Load:
    """Locust processes with one environment."""

    def __init__(self, out: Path, service: StandIn, origin: ReferenceOrigin) -> None:
        self.out = out
        self.settings = {
            "LOAD_OUT": str(out),
            "LOAD_URLS": service.url,
            "LOAD_ORIGIN": origin.url,
            "LOAD_KEYS": "zipf:500:1.1",
            # On a busy machine nobody goes away before the answer comes.
            "LOAD_TIMEOUT": "60",
        }

    async def run(self, *words: str, seconds: float = 2) -> tuple[int, str]:
        """Exit code and log."""
        return await self.locust(
            "--headless", "--only-summary", "--run-time", f"{seconds}s", "--spawn-rate", "99", *words
        )

    async def locust(self, *words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *LOCUST,
            *words,
            env={**os.environ, **self.settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            log, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode or 0, log.decode()

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return found


@pytest.fixture
def load(tmp_path: Path, service: StandIn, origin: ReferenceOrigin) -> Load:
    return Load(tmp_path / "out", service, origin)


def by_chance(summary: dict[str, Any]) -> float:
    """How far a share may be from its mean: four standard deviations of a share of one half."""
    return float(2 / summary["requests"] ** 0.5)


async def test_each_kind_of_user_asks_and_what_answers_say_is_recorded(
    load: Load, origin: ReferenceOrigin
) -> None:
    load.settings |= {
        "LOAD_MIX": "http=6,writer=2,bulk=1",
        "LOAD_RATE": "150",
        "LOAD_MAX_LAG": "0.2",
        "LOAD_VALUE_BYTES": "100",
    }
    code, log = await load.run(
        "--users", "18", "--html", f"{load.out}/locust.html", "--csv", f"{load.out}/locust", seconds=3
    )
    assert code == 0, log
    summary = load.summary
    assert sorted(summary["by_route"]) == [
        "GET /v1/{ns}/{key}",
        "POST /v1/invalidations",
        "POST /v1/{ns}:get",
    ]
    assert summary["failures"] == 0, summary["reasons"]
    assert 20 < summary["requests"] < 1.3 * 450, "a busy machine makes fewer"
    shares = [route["requests"] / summary["requests"] for _, route in sorted(summary["by_route"].items())]
    assert shares == pytest.approx([6 / 9, 2 / 9, 1 / 9], abs=by_chance(summary))

    gets, bulks = (
        summary["by_route"]["GET /v1/{ns}/{key}"]["requests"],
        summary["by_route"]["POST /v1/{ns}:get"]["requests"],
    )
    assert summary["by_tier"] | {"l1": gets, "l2": 99 * bulks, "error": bulks} == summary["by_tier"]
    assert summary["lag_max"] == 0.75
    assert summary["too_stale"] > 0, (
        "the stand-in answers its first version of what was invalidated 0.2 s ago"
    )
    assert summary["late_ms_p99"] is not None
    assert origin.behaviour.size == "100B"

    lines = [json.loads(line) for line in (load.out / "samples.jsonl").read_text().splitlines()]
    assert sum(line["requests"] for line in lines) == summary["requests"]
    assert "doc-" not in (load.out / "locust_stats.csv").read_text(), "a row per key"
    assert (load.out / "locust.html").stat().st_size > 10_000


async def test_the_sdk_is_a_user_like_the_others(load: Load) -> None:
    load.settings |= {"LOAD_MIX": "sdk=1", "LOAD_RATE": "150"}
    code, log = await load.run("--users", "20")
    assert code == 0, log
    summary = load.summary
    assert (list(summary["by_route"]), summary["failures"]) == (["SDK lookup"], 0), summary["reasons"]
    assert (summary["by_tier"]["l2"], summary["lag_max"]) == (summary["requests"], 0.75)


async def test_workers_make_one_load_together_and_the_master_has_the_record(
    load: Load, service: StandIn
) -> None:
    (port,) = free_ports(1)
    load.settings |= {"LOAD_MIX": "http=3,writer=1", "LOAD_RATE": "150", "LOAD_MAX_LAG": "60"}
    worker = ("--worker", "--master-port", str(port))
    master = ("--master", "--master-bind-port", str(port), "--expect-workers", "2", "--users", "8")
    ended = await asyncio.gather(load.run(*master, seconds=3), load.locust(*worker), load.locust(*worker))
    assert [code for code, _ in ended] == [0, 0, 0], ended
    summary = load.summary
    # What was under way when the load ended was asked, and has no result.
    assert 0 <= service.asked.total() - summary["requests"] <= 8
    assert 20 < summary["requests"] < 1.3 * 450
    assert summary["by_route"]["POST /v1/invalidations"]["requests"] / summary["requests"] == pytest.approx(
        0.25, abs=by_chance(summary)
    )
    assert (summary["failures"], summary["too_stale"], summary["came_late"]) == (0, 0, 0)


async def test_a_refusal_is_a_failure_with_its_reason_and_a_closed_loop_has_no_lateness(
    load: Load, service: StandIn
) -> None:
    service.is_overloaded = True
    code, log = await load.run("--users", "2")
    assert code == 0, log
    summary = load.summary
    assert summary["reasons"] == {"503 overloaded": summary["requests"]}
    assert summary["late_ms_p99"] is None
    assert summary["by_tier"]["l1"] == 0


async def test_an_instance_that_is_gone_costs_a_second_attempt_and_no_answer(
    load: Load, service: StandIn
) -> None:
    (nobody,) = free_ports(1)
    load.settings |= {"LOAD_URLS": f"{service.url},http://127.0.0.1:{nobody}"}
    code, log = await load.run("--users", "5")
    assert code == 0, log
    assert load.summary["failures"] == 0
    assert load.summary["failovers"] > 0


@pytest.mark.parametrize(
    ("settings", "words", "why"),
    [
        ({"LOAD_MIX": "htp=1"}, (), "LOAD_MIX: 'htp=1': no kind of user is called 'htp'"),
        ({"LOAD_URLS": ""}, (), "LOAD_URLS: '': base URLs of instances"),
        ({"LOAD_KEYS": "trace:none.gz"}, (), "No such file"),
        (
            {"LOAD_VALUE_BYTES": "9", "LOAD_ORIGIN": "http://127.0.0.1:1"},
            (),
            "load: the origin cannot be reached",
        ),
        (
            {"LOAD_MIX": "http=1,writer=1"},
            ("--users", "1"),
            "--users is too small for LOAD_MIX: there is no Writer",
        ),
    ],
)
async def test_what_cannot_be_a_load_is_refused_with_a_reason(
    load: Load, settings: dict[str, str], words: tuple[str, ...], why: str
) -> None:
    load.settings |= settings
    code, log = await load.run(*words, seconds=1)
    assert code == 1, log
    assert why in log


async def test_nothing_of_the_service_is_in_the_process_that_gevent_has_patched(load: Load) -> None:
    code = (
        "import runpy, sys; runpy.run_path('loadtests/load/locustfile.py');"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('cachesvc', 'uvloop')))"
    )
    load.settings |= {"LOAD_MIX": "http=1,sdk=1,bulk=1,writer=1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env={**os.environ, **load.settings, "PYTHONPATH": "."},
        stdout=asyncio.subprocess.PIPE,
    )
    log, _ = await process.communicate()
    assert log.decode().strip() == "[]"
