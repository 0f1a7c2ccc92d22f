"""Our SDK beside what a team would otherwise write.

    python -m loadtests.bench.sdk_side_by_side     prints one table

Everything runs on the same cores: the reading processes, and behind them our instance with
memcached and Redis, or Redis alone. Without `--service` it starts an instance of its own.
`--json` prints the figures as one JSON object instead of the table.
"""

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import BrokenBarrierError

from loadtests.bench.cores import Cores
from loadtests.bench.figures import BenchError, percentile
from loadtests.bench.keyspace import VALUE_BYTES
from loadtests.bench.sdk_phases import (
    KEYS,
    ORIGIN_SECONDS,
    ZIPF_EXPONENT,
    Measured,
    Phases,
    Plan,
    joined,
    meet_at,
    phases,
)
from loadtests.bench.sdk_rivals import WAYS, Ages, Backends
from loadtests.bench.servers import Servers
from loadtests.bench.stage import Stage


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    reads_per_second: float
    p99_ms: float
    loads: int
    """Loads in the warm phase, where none was needed."""
    stampede_p99_ms: float
    stampede_loads: float
    """Loads per stampede, where one is needed."""
    expiry_p99_ms: float
    expiry_loads: float
    """Loads per lifetime.

    One is needed at least, and a little more by ways that refresh before the end.
    """


def figures_of(measured: Phases, plan: Plan) -> Figures:
    """The figures of one way."""
    warm = measured.warm
    return Figures(
        reads_per_second=len(warm.latencies) / warm.seconds,
        p99_ms=_p99_ms(warm),
        loads=warm.loads,
        stampede_p99_ms=_p99_ms(measured.stampede),
        stampede_loads=measured.stampede.loads / plan.stampedes,
        expiry_p99_ms=_p99_ms(measured.expiry),
        expiry_loads=measured.expiry.loads / plan.expiries,
    )


def _p99_ms(measured: Measured) -> float:
    return percentile(sorted(measured.latencies), 0.99) * 1e3


def measure(plan: Plan) -> dict[str, Figures]:
    """Measures one way after the other, in the same processes.

    Raises `BenchError` if a way answers a wrong value or fails.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(plan.processes)
    with ProcessPoolExecutor(
        plan.processes, mp_context=spawn, initializer=meet_at, initargs=(barrier,)
    ) as pool:
        found = {}
        for name in WAYS:
            running = [pool.submit(phases, plan, name, index) for index in range(plan.processes)]
            found[name] = figures_of(joined(_answers(name, running)), plan)
        return found


def _answers(name: str, running: Sequence[Future[Phases]]) -> list[Phases]:
    failures = [failure for one in running if (failure := one.exception()) is not None]
    if failures:
        # The other processes were only told that they wait in vain.
        cause = next(
            (failure for failure in failures if not isinstance(failure, BrokenBarrierError)), failures[0]
        )
        raise BenchError(f"{name}: {cause!r}") from cause
    return [one.result() for one in running]


# the table ----------------------------------------------------------------------------------------

_LAYOUT = "{:<14} {:>10} {:>8} {:>7} │ {:>9} {:>7} │ {:>9} {:>7}"


def table(found: dict[str, Figures], plan: Plan) -> list[str]:
    """The lines of the table."""
    ages = plan.ages
    head = _LAYOUT.format("", "reads/s", "p99 ms", "loads", "p99 ms", "loads", "p99 ms", "loads")
    return [
        f"{plan.processes} processes; {KEYS:,} keys by Zipf {ZIPF_EXPONENT:g}, {VALUE_BYTES}-byte values; "
        f"the origin takes {ORIGIN_SECONDS * 1e3:g} ms; all on cores {_cores()}",
        f"warm      {plan.readers} readers a process, {plan.warm_seconds:g} s,"
        " each process has read every key before",
        f"stampede  {plan.crowd} readers a process want a cold key at once;"
        f" the mean of {plan.stampedes}; 1 load is needed",
        f"expiry    one key, {plan.readers} readers a process, a read each 20 ms or so;"
        f" no value older than {ages.most:g} s, "
        f"refreshed from {ages.refresh:g} s on by who can; loads per {ages.most:g} s",
        "",
        _LAYOUT.format("", "warm", "", "", "stampede", "", "expiry", ""),
        head,
        "─" * len(head),
        *(_line(name, figures) for name, figures in found.items()),
        "",
        *(f"{name:<14} {WAYS[name].said}" for name in found),
    ]


def _line(name: str, figures: Figures) -> str:
    warm = (f"{figures.reads_per_second:,.0f}", f"{figures.p99_ms:.3g}", figures.loads)
    stampede = (f"{figures.stampede_p99_ms:.3g}", f"{figures.stampede_loads:.1f}")
    return _LAYOUT.format(
        name, *warm, *stampede, f"{figures.expiry_p99_ms:.3g}", f"{figures.expiry_loads:.1f}"
    )


def _cores() -> str:
    return ", ".join(map(str, sorted(os.sched_getaffinity(0))))


# the command --------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; the exit code."""
    args = _arguments(argv)
    with ExitStack() as stack:
        plan = _plan(args, _backends(args.service, stack))
        found = measure(plan)
    if args.json:
        print(json.dumps({name: asdict(figures) for name, figures in found.items()}))
    else:
        print("\n".join(table(found, plan)))
    return 0


def _backends(service_url: str, stack: ExitStack) -> Backends:
    folder, cores = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-bench-")), Cores.choose()
    servers = Servers(folder=Path(folder), server_core=cores.server, load_core=cores.load)
    stack.callback(servers.close)
    return Backends(service_url or Stage(servers).service("l1").url, servers.redis().port)


def _plan(args: argparse.Namespace, backends: Backends) -> Plan:
    ages = Ages(refresh=0.7 * args.lifetime, most=args.lifetime)
    return Plan(
        backends,
        processes=args.processes,
        readers=16,
        warm_seconds=args.seconds,
        stampedes=args.stampedes,
        crowd=50,
        ages=ages,
        expiries=args.expiries,
        run=secrets.token_hex(3),
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="loadtests.bench.sdk_side_by_side", description="Ours beside what a team would write."
    )
    parser.add_argument("--service", default="", help="URL of a running instance with a namespace `bench`")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.5, help="of the warm phase (default 1.5)")
    parser.add_argument("--stampedes", type=int, default=10)
    parser.add_argument(
        "--lifetime", type=float, default=2.0, help="seconds; of the key that expires (default 2)"
    )
    parser.add_argument(
        "--expiries", type=int, default=2, help="lifetimes that the expiry phase lasts (default 2)"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
