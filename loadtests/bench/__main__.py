"""Side-by-side benchmarks.

    make bench
    make bench ONLY=l1_get JSON=rows.json
    make bench SMOKE=1

`ONLY`, `JSON` and `SMOKE` are read from the environment (make passes them on) and can be given as
options. The exit code is 1 if a comparison has no number or, except in a smoke run, if one misses
its goal.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.cores import Cores
from loadtests.bench.drivers import choose
from loadtests.bench.figures import BenchError, Result
from loadtests.bench.report import Failed, header_lines, machine_lines, result_line, write_json
from loadtests.bench.rows import COMPARISONS, Run
from loadtests.bench.servers import Servers
from loadtests.bench.stage import Stage


def main() -> int:
    """Runs the chosen comparisons; the exit code."""
    args = _arguments()
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    driver = choose(args.driver)
    pairs, seconds = (1, 1.0) if args.smoke else (args.pairs, args.seconds)
    _say(machine_lines(cores, driver.name, pairs, seconds), ["", *header_lines()])
    with tempfile.TemporaryDirectory(prefix="cachesvc-bench-") as folder:
        servers = Servers(folder=Path(folder), server_core=cores.server, load_core=cores.load)
        run = Run(Stage(servers), driver, cores, pairs, seconds, warm_up=not args.smoke)
        try:
            rows = _compare(run, args.only)
        finally:
            servers.close()
    if args.json:
        write_json(Path(args.json), rows)
    return _verdict(rows, smoke=args.smoke)


def _compare(run: Run, names: Sequence[str]) -> list[Result | Failed]:
    rows: list[Result | Failed] = []
    for name in names:
        found: Sequence[Result | Failed]
        try:
            found = COMPARISONS[name](run)
        except BenchError as failure:
            found = [Failed(name, str(failure))]
        _say([result_line(row) for row in found])
        rows += found
    return rows


def _verdict(rows: Sequence[Result | Failed], *, smoke: bool) -> int:
    failed = [row.name for row in rows if isinstance(row, Failed)]
    missed = [row.name for row in rows if isinstance(row, Result) and not row.ok]
    if failed:
        _say(["", f"no number: {', '.join(failed)}"])
    if missed:
        _say(["", f"below reach: {', '.join(missed)}{' (a smoke run does not judge)' if smoke else ''}"])
    return 1 if failed or (missed and not smoke) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="loadtests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", default=os.environ.get("ONLY", ""), help=f"comma-separated, of: {', '.join(COMPARISONS)}"
    )
    parser.add_argument("--json", default=os.environ.get("JSON", ""), help="also write the rows to this file")
    parser.add_argument(
        "--smoke",
        action="store_true",
        default=os.environ.get("SMOKE", "") not in ("", "0"),
        help="one short pair",
    )
    parser.add_argument(
        "--pairs", type=int, default=5, help="pairs of measurements, at least 5 to be quoted (default 5)"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement (default 3)")
    parser.add_argument(
        "--driver", choices=["auto", "wrk", "built-in"], default="auto", help="default: wrk if installed"
    )
    args = parser.parse_args()
    args.only = args.only.split(",") if args.only else list(COMPARISONS)
    unknown = [name for name in args.only if name not in COMPARISONS]
    if unknown:
        parser.error(f"no comparison {', '.join(unknown)}; there are {', '.join(COMPARISONS)}")
    return args


def _say(*blocks: Sequence[str]) -> None:
    for block in blocks:
        print("\n".join(block), flush=True)


if __name__ == "__main__":
    sys.exit(main())
