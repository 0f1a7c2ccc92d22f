"""The faults of scenarios: what breaks, and how it is repaired.

Faults are real signals to real processes, and commands to the origin.

A fault begins and ends. Both calls happen on the main thread and may take a while; the record has
the moments at which they really took place. A fault that is over when `begin` returns does
nothing in `end`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import urllib3

from cachesvc.app.embedded.server_process import ServerProcess
from loadtests.fleet_servers import REPOSITORY
from loadtests.load.arrivals import Times
from loadtests.load.keys import Part, keys_of


class Place(Protocol):
    """The deployment that faults happen to."""

    def server(self, name: str) -> ServerProcess:
        """The process with this name, such as `cell-eu-1` or `instance-us-a`."""
        ...

    def instances(self) -> Sequence[str]:
        """The names of the processes of all instances."""
        ...

    def urls(self) -> Sequence[str]:
        """The base URLs of the instances that get the load."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace under load."""
        ...

    @property
    def folder(self) -> Path:
        """The folder of the run's record."""
        ...

    def tell_origin(self, behaviour: Mapping[str, Any]) -> None:
        """Changes the behaviour of the reference origin."""
        ...

    def marked(self, what: str) -> AbstractContextManager[None]:
        """Shows `what` in the progress and in the plot for as long as the block runs."""
        ...


class Fault(Protocol):
    """Something that breaks for a while."""

    @property
    def what(self) -> str:
        """A few words for the plot. Empty if the fault marks its parts itself."""
        ...

    def begin(self, place: Place) -> None:
        """Breaks it."""
        ...

    def end(self, place: Place) -> None:
        """Repairs it."""
        ...


@dataclass(frozen=True)
class Killed:
    """A server is killed (SIGKILL), and later started at the same port with an empty memory."""

    server: str

    @property
    def what(self) -> str:
        return f"{self.server} killed"

    def begin(self, place: Place) -> None:
        place.server(self.server).kill(signal.SIGKILL)

    def end(self, place: Place) -> None:
        place.server(self.server).start()


@dataclass(frozen=True)
class Stopped:
    """A server is stopped (SIGSTOP), and later goes on with all its state (SIGCONT).

    Meanwhile its port still takes connections, but nothing answers on them.
    """

    server: str

    @property
    def what(self) -> str:
        return f"{self.server} stopped"

    def begin(self, place: Place) -> None:
        server = place.server(self.server)
        server.kill(signal.SIGSTOP)
        os.waitid(os.P_PID, server.pid, os.WSTOPPED)

    def end(self, place: Place) -> None:
        place.server(self.server).kill(signal.SIGCONT)


@dataclass(frozen=True)
class OriginDoes:
    """The origin behaves differently for a while."""

    what: str
    behaviour: Mapping[str, Any]
    before: Mapping[str, Any]

    def begin(self, place: Place) -> None:
        place.tell_origin(self.behaviour)

    def end(self, place: Place) -> None:
        place.tell_origin(self.before)


@dataclass(frozen=True)
class RollingRestart:
    """Restarts the instances one after the other.

    An instance gets SIGTERM, ends when its requests are done, and is started again.
    """

    pause_seconds: float
    what: str = ""

    def begin(self, place: Place) -> None:
        for name in place.instances():
            with place.marked(f"{name.removeprefix('instance-')} restarts"):
                place.server(name).restart()
            time.sleep(self.pause_seconds)

    def end(self, place: Place) -> None:
        """Nothing to repair: the last restart is over when `begin` returns."""


@dataclass
class InvalidationStorm:
    """Invalidates many of the keys that are read, every second, through the API.

    One thread sends the invalidations over one connection.
    """

    per_second: float
    keys: str
    """The source of the keys, in the form of `LOAD_KEYS`."""
    keys_each: int = 1
    """The number of keys in each invalidation."""
    seed: int = 7
    sent: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    @property
    def what(self) -> str:
        return f"{self.per_second * self.keys_each:g} invalidated keys/s"

    def begin(self, place: Place) -> None:
        self._over.clear()
        self._thread = threading.Thread(
            target=self._storm, args=(place.urls(), place.namespace), name="storm", daemon=True
        )
        self._thread.start()

    def end(self, place: Place) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()

    def _storm(self, urls: Sequence[str], namespace: str) -> None:
        keys = keys_of(self.keys, Part(), self.seed)
        with urllib3.PoolManager(timeout=2.0, retries=False) as http:
            due = time.monotonic()
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due += 1 / self.per_second
                change = {"namespace": namespace, "keys": [next(keys) for _ in range(self.keys_each)]}
                self._send(http, urls[self.sent % len(urls)], change)

    def _send(self, http: urllib3.PoolManager, url: str, change: Mapping[str, Any]) -> None:
        self.sent += 1
        try:
            answer = http.request(
                "POST",
                f"{url}/v1/invalidations",
                body=msgspec.json.encode(change),
                headers={"Content-Type": "application/json"},
            )
            self.failed += answer.status >= 400
        except urllib3.exceptions.HTTPError:
            self.failed += 1


@dataclass
class Neighbour:
    """The callers of another namespace: a process that asks at its rate, answered or not.

    The program is `neighbour.py`.
    """

    what: str
    namespace: str
    keys: str
    """The source of the keys, in the form of `LOAD_KEYS`."""
    rate: float | Times
    """Requests per second."""
    keys_each: int = 1
    """The number of keys in each request: 1 is a `GET`, more are a `:get`."""
    prefix: str = ""
    """The text before each key. Keys with a prefix of their own are in no tier."""
    _process: ServerProcess | None = field(default=None, init=False)

    def begin(self, place: Place) -> None:
        process = ServerProcess(
            "neighbour-" + "".join(sign if sign.isalnum() else "-" for sign in self.what),
            self.command(place.urls(), place.folder / "neighbour.jsonl"),
            is_ready=lambda: b"asks" in process.log.read_bytes(),
            run_dir=place.folder,
            environ={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        self._process = process
        process.start()

    def end(self, place: Place) -> None:
        if self._process:
            self._process.stop()

    def command(self, urls: Sequence[str], rows: Path) -> Sequence[str]:
        """The command line of the process, which adds a row for each second to `rows`."""
        options = {
            "--url": urls[0],
            "--namespace": self.namespace,
            "--keys": self.keys,
            "--prefix": self.prefix,
            "--rate": f"{self.rate:g}",
            "--keys-each": str(self.keys_each),
            "--out": str(rows),
        }
        words = (f"{name}={value}" for name, value in options.items())
        return [sys.executable, "-m", "loadtests.load.neighbour", *words]
