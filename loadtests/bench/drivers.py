"""The closed-loop load: `wrk` where it is installed, else the built-in loop.

Both fail a measurement in which an answer was wrong, instead of counting that answer.
"""

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

# The requests are read from a file that has, for each, its length, a newline and its bytes. They
# walk over all keys, whichever connection asks.
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
    """The requests that one server gets, again and again."""

    base_url: str
    requests: Sequence[bytes]
    least_body: int
    """The least length of an answer's body, in bytes.

    The built-in loop checks it in every answer, wrk by the sum of all answers.
    """
    keys_per_request: int = 1


class Driver(Protocol):
    """Keeps `CONNECTIONS` connections busy for `seconds`, and returns answers per second.

    Raises `BenchError` if an answer is wrong.
    """

    name: str

    def __call__(self, load: Load, seconds: float) -> float: ...


class BuiltIn:
    """The driver of this repository (`loops.py`)."""

    name = "built-in"

    def __call__(self, load: Load, seconds: float) -> float:
        return closed_loop(
            load.base_url, load.requests, connections=CONNECTIONS, seconds=seconds, least_body=load.least_body
        )


class Wrk:
    """Runs `wrk` on the core of the calling process, whose affinity it inherits."""

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
    """Answers per second, from the line that the script prints.

    Raises `BenchError` if an answer failed, or if there are fewer bytes than the bodies must have.
    """
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
    """The driver that is `wanted`: `wrk`, `built-in`, or `auto` (wrk if it is installed)."""
    path = None if wanted == "built-in" else shutil.which("wrk")
    if path is None and wanted == "wrk":
        raise BenchError("wrk is not on PATH")
    return Wrk(path) if path else BuiltIn()
