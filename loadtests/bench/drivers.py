"""The closed-loop load: `wrk` where it is installed, else the built-in loop. Both refuse to count an answer that is no answer."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadtests.bench.figures import BenchError
from loadtests.bench.loops import closed_loop

CONNECTIONS = 32

# The requests come from a file: length, newline, bytes, and so on. They walk over all keys, whichever connection asks.
_WALK_LUA = """
local requests, at = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    requests[#requests + 1] = file:read(length)
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    'BENCH {"requests": %d, "microseconds": %d, "bytes": %d, "socket_errors": %d, "not_2xx": %d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status))
end
"""


@dataclass(frozen=True)
class Load:
    """What is asked of one server, again and again."""

    base_url: str
    requests: Sequence[bytes]
    least_body: int
    """No body of an answer is shorter (checked in every answer, or by wrk's total)."""
    keys_per_request: int = 1


class Driver(Protocol):
    """Keeps `CONNECTIONS` connections busy for `seconds`; returns answers per second. Raises `BenchError` on a bad answer."""

    name: str

    def __call__(self, load: Load, seconds: float) -> float: ...


class BuiltIn:
    name = "built-in"

    def __call__(self, load: Load, seconds: float) -> float:
        return closed_loop(
            load.base_url, load.requests, connections=CONNECTIONS, seconds=seconds, least_body=load.least_body
        )


class Wrk:
    """Runs on the core of the process that calls it (affinity is inherited)."""

    def __init__(self, path: str) -> None:
        self._path = path
        version = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
        self.name = " ".join((version.stdout + version.stderr).split()[:2])

    def __call__(self, load: Load, seconds: float) -> float:
        with tempfile.TemporaryDirectory() as folder:
            script, requests = Path(folder, "walk.lua"), Path(folder, "requests")
            script.write_text(_WALK_LUA)
            requests.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in load.requests))
            return answers_per_second(self._run(load.base_url, script, requests, seconds), load.least_body)

    def _run(self, base_url: str, script: Path, requests: Path, seconds: float) -> str:
        # wrk takes whole seconds only.
        shape = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        done = subprocess.run(
            [self._path, *shape, base_url, "--", str(requests)],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout


def answers_per_second(printed: str, least_body: int) -> float:
    """From the line that the script prints. Raises `BenchError` if any answer failed or the bytes do not add up."""
    lines = [line for line in printed.splitlines() if line.startswith("BENCH ")]
    if not lines:
        raise BenchError(f"wrk printed no summary: {printed!r}")
    summary: dict[str, int] = json.loads(lines[0].removeprefix("BENCH "))
    if summary["not_2xx"] or summary["socket_errors"] or not summary["requests"]:
        raise BenchError(f"wrk counted failed answers: {lines[0]}")
    if summary["bytes"] < summary["requests"] * least_body:
        raise BenchError(f"wrk read fewer bytes than the bodies have: {lines[0]}")
    return summary["requests"] / (summary["microseconds"] / 1e6)


def choose(wanted: str) -> Driver:
    """`wrk`, `built-in`, or `auto`: wrk if it is installed."""
    path = None if wanted == "built-in" else shutil.which("wrk")
    if path is None and wanted == "wrk":
        raise BenchError("wrk is not on PATH")
    return Wrk(path) if path else BuiltIn()
