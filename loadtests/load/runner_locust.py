"""Locust as a process of its own.

gevent patches the standard library, so locust must not run in the process of the runner.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cachesvc.app.embedded.server_process import ServerProcess
from loadtests.fleet_servers import REPOSITORY
from loadtests.load.judge_rows import Sample, read_rows
from loadtests.load.runner_stage import Stage
from loadtests.scenarios.scenario import Leg

LOCUSTFILE = REPOSITORY / "loadtests" / "load" / "locustfile.py"
MORE_SECONDS = 2.0
"""Seconds that a leg runs beyond its time, so that its last second is recorded completely."""
SEED = 1


def locust_process(leg: Leg, rate: float, stage: Stage, folder: Path) -> ServerProcess:
    """The process of one leg's load. It ends by itself; it is ready after the first second."""
    folder.mkdir()
    samples = folder / "samples.jsonl"
    return ServerProcess(
        "locust",
        command(leg, folder),
        is_ready=lambda: bool(read_rows(samples, Sample)),
        run_dir=folder,
        environ={**os.environ, "PYTHONPATH": str(REPOSITORY), **settings(leg, rate, stage, folder)},
    )


def command(leg: Leg, folder: Path) -> Sequence[str]:
    """The command line of locust."""
    options = {
        "-f": str(LOCUSTFILE),
        "--users": str(leg.users),
        # All users at once: arrivals shape the load, not the number of users.
        "--spawn-rate": str(leg.users),
        "--run-time": f"{leg.seconds + MORE_SECONDS:.0f}s",
        "--html": str(folder / "locust.html"),
        "--csv": str(folder / "locust"),
        "--exit-code-on-error": "0",  # failures are judged by the thresholds
    }
    return [
        sys.executable,
        "-m",
        "locust",
        "--headless",
        "--only-summary",
        *(word for pair in options.items() for word in pair),
    ]


def settings(leg: Leg, rate: float, stage: Stage, folder: Path) -> Mapping[str, str]:
    """The environment variables `LOAD_*` for one leg."""
    namespace = leg.namespace or stage.namespace
    return {
        "LOAD_URLS": ",".join(stage.urls()),
        "LOAD_ORIGIN": stage.origin_url,
        "LOAD_NAMESPACE": namespace,
        "LOAD_MAX_LAG": str(stage.fleet.topology.namespaces[namespace].max_lag / 1e6),
        "LOAD_OUT": str(folder),
        "LOAD_MIX": leg.mix,
        "LOAD_KEYS": leg.keys,
        "LOAD_RATE": f"{rate:g}",
        "LOAD_TIMEOUT": f"{leg.timeout:g}",
        "LOAD_SEED": str(SEED),
    }
