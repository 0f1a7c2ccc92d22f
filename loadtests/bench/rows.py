"""The comparisons, in the order of the table. Each measures pair by pair.

A pair is our side, then the other side, for the same time, with the same driver, connections,
keys and bytes, on the same cores, against servers that were warm before.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from loadtests.bench.cores import BusyMeter, Cores, ProcessMeter, on_core
from loadtests.bench.drivers import CONNECTIONS, Driver, Load
from loadtests.bench.figures import BenchError, Goal, Result, Sample, percentile
from loadtests.bench.keyspace import BATCH, KEYS, VALUE_BYTES, batch_requests, get_requests, values
from loadtests.bench.loops import open_loop, poisson_arrivals
from loadtests.bench.scraper import scraped
from loadtests.bench.servers import Server
from loadtests.bench.stage import BEARER, Service, Stage

SDK_CONCURRENCY = 64
TRACED = {"some": "1 %", "all": "100 %"}

Measure = Callable[[float], Sample]
"""Measures one side for this number of seconds."""


@dataclass(frozen=True)
class Run:
    """The set-up that every comparison gets."""

    stage: Stage
    driver: Driver
    cores: Cores
    pairs: int
    seconds: float
    """The duration of one measurement."""
    warm_up: bool
    """True if each side runs once unmeasured first."""

    def compare(self, name: str, unit: str, goal: Goal, ours: Measure, theirs: Measure) -> Result:
        """A row of `pairs` pairs of measurements."""
        if self.warm_up:
            ours(1.0)
            theirs(1.0)
        pairs = tuple((ours(self.seconds), theirs(self.seconds)) for _ in range(self.pairs))
        return Result(name, unit, goal, pairs)

    def metered(self, pid: int, measure: Callable[[], float]) -> Sample:
        """Measures, and adds what the process and both cores used meanwhile."""
        process, server, load = ProcessMeter(pid), BusyMeter(self.cores.server), BusyMeter(self.cores.load)
        figure = measure()
        return Sample(figure, process.share(), server.share(), load.share())

    def saturating(self, server: Server, load: Load) -> Measure:
        """A measurement of keys per second under the closed loop; a GET is one key."""
        return lambda seconds: self.metered(
            server.pid, lambda: self.driver(load, seconds) * load.keys_per_request
        )

    def checked(self, service: Service, measure: Measure) -> Measure:
        """A measurement that is checked afterwards: does the claimed tier still answer?

        A number that fails the check is not returned: `BenchError` is raised.
        """

        def measure_and_check(seconds: float) -> Sample:
            sample = measure(seconds)
            service.check_tier(every=KEYS // 50)
            return sample

        return measure_and_check


def _gets(base_url: str, headers: Mapping[str, str] | None = None) -> Load:
    return Load(base_url, get_requests(base_url, list(values()), headers), least_body=VALUE_BYTES)


def _batches(base_url: str) -> Load:
    requests = batch_requests(base_url, list(values()))
    return Load(base_url, requests, least_body=BATCH * VALUE_BYTES, keys_per_request=BATCH)


def _get_against(name: str, set_up: str, rival: str, reach: float) -> "Comparison":
    def run(run: Run) -> list[Result]:
        service, other = run.stage.service(set_up), run.stage.rival(rival)
        ours = run.checked(service, run.saturating(service.server, _gets(service.url)))
        result = run.compare(name, "requests/s", Goal(reach), ours, run.saturating(other, _gets(other.url)))
        return [replace(result, cpu_bound=True)]

    return run


def _telemetry_cost(run: Run) -> list[Result]:
    """Our side has telemetry; their side is the same service without it."""

    def against_none(name: str, tier: str, share: str, reach: float) -> Result:
        traced, plain = run.stage.service(f"{tier}_traced_{share}"), run.stage.service(tier)
        saturating = run.saturating(traced.server, _gets(traced.url))

        def ours(seconds: float) -> Sample:
            with scraped(traced.url):
                return saturating(seconds)

        theirs = run.checked(plain, run.saturating(plain.server, _gets(plain.url)))
        result = run.compare(name, "requests/s", Goal(reach), run.checked(traced, ours), theirs)
        return replace(
            result,
            cpu_bound=True,
            note=f"{TRACED[share]} of requests traced, metrics scraped and sent every 3 s;"
            " theirs: none of it",
        )

    return [
        against_none("telemetry_cost_l1", "l1", "some", 0.93),
        against_none("telemetry_cost_l1_all", "l1", "all", 0.5),
        against_none("telemetry_cost_l2", "l2", "some", 0.93),
        against_none("telemetry_cost_l2_all", "l2", "all", 0.5),
    ]


def _cost(name: str, of: str, set_up: str, plain: str, reach: float) -> "Comparison":
    """Our side is `set_up`; their side is the same service without it."""

    def run(run: Run) -> list[Result]:
        def measure(service: Service) -> Measure:
            return run.checked(service, run.saturating(service.server, _gets(service.url)))

        ours, theirs = measure(run.stage.service(set_up)), measure(run.stage.service(plain))
        result = run.compare(name, "requests/s", Goal(reach), ours, theirs)
        added_us = median(
            1e6 / one.per_cpu_second - 1e6 / other.per_cpu_second for one, other in result.pairs
        )
        note = f"theirs is the same without {of}, which adds {added_us:.1f} µs of CPU time to a request"
        return [replace(result, cpu_bound=True, note=note)]

    return run


def _bearer_cost(run: Run) -> list[Result]:
    """Our side shows a bearer token with each `GET`; theirs is a service without callers."""
    known, plain = run.stage.service("l1_callers"), run.stage.service("l1")
    load = _gets(known.url, {"Authorization": f"Bearer {BEARER}"})
    ours = run.checked(known, run.saturating(known.server, load))
    theirs = run.checked(plain, run.saturating(plain.server, _gets(plain.url)))
    result = run.compare("l1_get_bearer", "requests/s", Goal(0.95), ours, theirs)
    return [replace(result, cpu_bound=True, note="theirs is the same without callers and tokens")]


def _batch_against_get_many(name: str, set_up: str, reach: float) -> "Comparison":
    def run(run: Run) -> list[Result]:
        service, port = run.stage.service(set_up), run.stage.memcached().port
        service.check_batch_tier()
        argv = ["-m", "loadtests.bench.rivals", "get-many", "--memcached", str(port)]

        theirs = _by_itself(argv, core=run.cores.server, other_core=run.cores.load)
        ours = run.checked(service, run.saturating(service.server, _batches(service.url)))
        return [run.compare(name, "keys/s", Goal(reach), ours, theirs)]

    return run


def _sdk_batching(run: Run) -> list[Result]:
    service = run.stage.service("l1")

    def measure(mode: str) -> Measure:
        argv = ["-m", "loadtests.bench.sdk_load", service.url, mode, "--concurrency", str(SDK_CONCURRENCY)]
        return _by_itself(argv, core=run.cores.load, other_core=run.cores.server)

    ours = run.checked(service, measure("batched"))
    cores = "the process measured is the SDK's, the load core here the service's"
    note = f"{SDK_CONCURRENCY} concurrent gets; {cores}"
    return [replace(run.compare("sdk_batching", "keys/s", Goal(8), ours, measure("single")), note=note)]


def _near_hit(run: Run) -> list[Result]:
    """Costs beside those of an LRU, and rates beside those of cashews.

    Rates, because the `get` of cashews is async only.
    """
    service = run.stage.service("l1")
    argv = [
        "-m",
        "loadtests.bench.sdk_near",
        service.url,
        "--pairs",
        str(run.pairs),
        "--seconds",
        str(run.seconds / 10),
    ]
    costs: list[dict[str, float]] = _reported(argv, run.cores.load)

    def against_lru(name: str, ours: str) -> Result:
        pairs = tuple((Sample(cost[ours]), Sample(cost["lru"])) for cost in costs)
        return Result(name, "ns", Goal(3, at_most=True), pairs, "theirs is cachetools.LRUCache[key]")

    def against_cashews(name: str, ours: str) -> Result:
        pairs = tuple((Sample(1e9 / cost[ours]), Sample(1e9 / cost["cashews"])) for cost in costs)
        return Result(name, "gets/s", Goal(5), pairs, "theirs is cashews' get, in memory")

    return [
        against_lru("near_hit", "near"),
        against_lru("near_hit_sync", "near_sync"),
        against_cashews("near_hit_cashews", "near"),
        against_cashews("near_sync_cashews", "near_sync"),
    ]


def _sdk_get_many(run: Run) -> list[Result]:
    service = run.stage.service("l1")

    def measure(client: str) -> Measure:
        argv = ["-m", "loadtests.bench.sdk_get_many", service.url, client]
        return _by_itself(argv, core=run.cores.load, other_core=run.cores.server)

    ours = run.checked(service, measure("sdk"))
    cores = "the process measured is the client, the load core here the service's"
    note = f"theirs is a bare aiohttp client; {cores}"
    half = replace(run, seconds=run.seconds / 2)
    return [replace(half.compare("sdk_get_many", "keys/s", Goal(0.8), ours, measure("raw")), note=note)]


def _sdk_side_by_side(run: Run) -> list[Result]:
    """A row for each rival, beside our way of the same kind. Not judged.

    Our near cache stands beside cashews, which keeps copies in the process, too.
    """
    scale = [
        "--seconds",
        f"{run.seconds / 3:g}",
        "--lifetime",
        f"{run.seconds * 2 / 3:g}",
        "--stampedes",
        str(run.pairs),
    ]
    argv = [
        "-m",
        "loadtests.bench.sdk_side_by_side",
        "--json",
        "--expiries",
        "1",
        "--service",
        run.stage.service("l1").url,
    ]
    found: dict[str, dict[str, float]] = _reported([*argv, *scale], run.cores.server, run.cores.load)

    def beside(name: str, ours: str, theirs: str) -> Result:
        one, other = found[ours], found[theirs]
        said = ", ".join(
            f"{what.replace('_', ' ')} {one[what]:.3g}|{other[what]:.3g}" for what in list(one)[1:]
        )
        pair = (Sample(one["reads_per_second"]), Sample(other["reads_per_second"]))
        return Result(name, "reads/s", Goal(0), (pair,), f"{ours}|{theirs}: {said}")

    return [
        beside("side_by_hand", "ours", "by hand"),
        beside("side_aiocache", "ours", "aiocache"),
        beside("side_cashews_early", "ours, near", "cashews early"),
        beside("side_cashews_lock", "ours, near", "cashews lock"),
    ]


def _l1_p99(run: Run) -> list[Result]:
    service, bare = run.stage.service("l1"), run.stage.rival("bare")
    rate = run.driver(_gets(service.url), run.seconds) / 2
    lags: list[float] = []

    def p99_ms(load: Load, seconds: float) -> float:
        arrivals = poisson_arrivals(rate, max(1.0, seconds), random.Random(0))
        timings = open_loop(
            load.base_url, load.requests, arrivals, connections=CONNECTIONS, least_body=load.least_body
        )
        lags.append(percentile(sorted(timings.send_lags), 0.99))
        return percentile(sorted(timings.latencies), 0.99) * 1e3

    def measure(server: Server) -> Measure:
        load = _gets(server.url)
        return lambda seconds: run.metered(server.pid, lambda: p99_ms(load, seconds))

    ours, theirs = measure(service.server), measure(bare)
    result = run.compare("l1_p99", "ms", Goal(1.5, at_most=True), run.checked(service, ours), theirs)
    late = f"driver late by {max(lags) * 1e3:.2f} ms at most (p99)"
    note = f"Poisson arrivals, {rate:,.0f}/s to both: half of the service's saturation; {late}"
    return [replace(result, note=note)]


def _l1_memory(run: Run) -> list[Result]:
    """L1's memory and garbage collection, against limits instead of a rival.

    A process of its own measures them.
    """
    measured = _reported(["-m", "loadtests.bench.l1_memory"], run.cores.server)
    return [
        _limited("l1_memory", "bytes/entry", measured["bytes_per_entry"], 450),
        _limited("l1_gc_pause", "ms", measured["gc_pause_ms"], 10),
    ]


def _fence_memory(run: Run) -> list[Result]:
    """The cost of merging fences, and of the check of one hit.

    The check is compared with an L1 `GET` on the same machine in the same minute.
    """
    service = run.stage.service("l1")
    get_us = 1e6 / run.saturating(service.server, _gets(service.url))(run.seconds).figure
    measured = _reported(["-m", "loadtests.bench.fence_memory"], run.cores.server)
    check = Result(
        "fence_check", "µs", Goal(0.03, at_most=True), ((Sample(measured["check_us"]), Sample(get_us)),)
    )
    return [
        replace(check, note="theirs is a whole L1 GET"),
        _limited("fence_merge", "s", measured["merge_seconds"], 2, "1,000,000 fences"),
        _limited(
            "fence_growth",
            "MiB",
            max(0.0, measured["grown_bytes"]) / (1 << 20),
            8,
            "of memory, by these; 8 MiB is noise",
        ),
    ]


def _fence_lag(run: Run) -> list[Result]:
    argv = ["-m", "loadtests.bench.fence_lag", "--seconds", str(run.seconds)]
    measured = _reported(argv, run.cores.server, run.cores.load)
    rows = (
        ("single", "fence_lag_single", 15),
        ("batches", "fence_lag_batches", 50),
        ("invalidate", "invalidate_p99", 5),
    )
    return [
        _limited(name, "ms", measured[kind]["p99_ms"], limit, _figures(measured[kind]))
        for kind, name, limit in rows
    ]


def _fence_start(run: Run) -> list[Result]:
    measured = _reported(["-m", "loadtests.bench.fence_start"], run.cores.server, run.cores.load)
    note = f"1,000,000 retained fences; without any it takes {measured['ready_seconds_without_fences']:.2f} s"
    return [_limited("fence_start", "s", measured["ready_seconds"], 3, note)]


def _figures(measured: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure:,.4g}" for name, figure in measured.items())


def _by_itself(argv: Sequence[str], *, core: int, other_core: int) -> Measure:
    """A process that measures its own keys per second and its own share of `core`.

    `other_core` is the core of the server that it asks.
    """

    def measure(seconds: float) -> Sample:
        other = BusyMeter(other_core)
        reported = _reported([*argv, "--seconds", str(seconds)], core)
        return Sample(
            reported["keys_per_second"], reported["process_share"], reported["core_busy"], other.share()
        )

    return measure


def _limited(name: str, unit: str, figure: float, limit: float, note: str = "") -> Result:
    said = "; ".join(filter(None, ["theirs is the limit", note]))
    return Result(name, unit, Goal(1, at_most=True), ((Sample(figure), Sample(limit)),), said)


def _reported(argv: Sequence[str], *cores: int) -> Any:
    """Runs a Python module on these cores; returns the JSON object that it prints last."""
    done = subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, preexec_fn=on_core(*cores), check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


Comparison = Callable[[Run], list[Result]]

COMPARISONS: dict[str, Comparison] = {
    "l1_get": _get_against("l1_get", "l1", "bare", 0.85),
    "l2_get": _get_against("l2_get", "l2", "bare", 0.60),
    "l1_get_tls": _cost("l1_get_tls", "TLS", "l1_tls", "l1", 0.8),
    "l2_get_sealed": _cost("l2_get_sealed", "a seal", "l2_sealed", "l2", 0.9),
    "l1_get_bearer": _bearer_cost,
    "l1_get_limits": _cost(
        "l1_get_limits",
        "rates, rooms, spread hot keys and the report",
        "l1_limits",
        "l1_no_limits",
        0.97,
    ),
    "l3_get": _get_against("l3_get", "l3", "bare", 0.50),
    "l2_get_aiomcache": _get_against("l2_get_aiomcache", "l2", "aiomcache", 1.3),
    "l2_get_executor": _get_against("l2_get_executor", "l2", "executor", 2),
    "batch_l1": _batch_against_get_many("batch_l1", "l1", 1.5),
    "batch_l2": _batch_against_get_many("batch_l2", "l2", 0.5),
    "near_hit": _near_hit,
    "sdk_batching": _sdk_batching,
    "sdk_get_many": _sdk_get_many,
    "sdk_side_by_side": _sdk_side_by_side,
    "l1_p99": _l1_p99,
    "telemetry_cost": _telemetry_cost,
    "l1_memory": _l1_memory,
    "fence_memory": _fence_memory,
    "fence_lag": _fence_lag,
    "fence_start": _fence_start,
}
