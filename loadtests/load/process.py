"""One locust process: what happens at the start, each second, at each report, at the end.

A `Driver` runs the users and counts; a `Keeper` writes the files. A single process has both. With
`--master` a process only keeps; with `--worker` it only drives, and its tallies travel with its
reports to the master. So exactly one process writes `LOAD_OUT`.
"""

import logging
import time
from typing import Any

import gevent
from locust import log
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load.arrivals import CLOSED
from loadtests.load.changes import Changes
from loadtests.load.keys import Part
from loadtests.load.recording import REPORT_DELAY, Record, Recorder, from_report, to_report
from loadtests.load.settings import Settings
from loadtests.load.shared import Shared
from loadtests.load.users import Visitor

REPORT_FIELD = "cachesvc_seconds"
"""The name of our field in a worker's report."""
USERS_MESSAGE = "cachesvc_users"
"""The message that tells the workers the number of users of each class.

The master sends it when all users are spawned.
"""

_log = logging.getLogger(__name__)


def attach(settings: Settings, environment: Environment) -> None:
    """Attaches the recording to locust's events.

    Call it when the runner is known and the load has not begun. Raises `ChangeError` if the origin is
    out of reach.
    """
    driver = None if isinstance(environment.runner, MasterRunner) else Driver(settings, environment)
    if not isinstance(environment.runner, WorkerRunner):
        if settings.value_bytes:
            Changes(settings.origin, timeout=settings.timeout).resize(settings.value_bytes)
        Keeper(settings, environment, driver)


class Driver:
    """The part of a process that runs users: it prepares them and counts their requests."""

    def __init__(self, settings: Settings, environment: Environment) -> None:
        self.recorder = Recorder()
        self._settings = settings
        self._environment = environment
        environment.events.test_start.add_listener(self.begin)
        environment.events.request.add_listener(self.note)
        environment.events.report_to_master.add_listener(self.report)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.register_message(USERS_MESSAGE, self.divide)

    def begin(self, **_: Any) -> None:
        """Prepares what the users share, when the load begins."""
        changes = Changes(self._settings.origin, timeout=self._settings.timeout)
        Visitor.shared = Shared(self._settings, self._part(), self.recorder, changes, sleep=gevent.sleep)
        gevent.spawn(self._measure)

    def note(
        self,
        request_type: str,
        name: str,
        response_time: float,
        exception: Exception | None,
        context: dict[str, Any],
        **_: Any,
    ) -> None:
        """Counts one request."""
        reason = str(exception) if exception else ""
        self.recorder.request(
            f"{request_type} {name}", response_time / 1e3, reason, context.get("turn", CLOSED)
        )

    def report(self, data: dict[str, Any], **_: Any) -> None:
        """Adds the tallies to a worker's report."""
        data[REPORT_FIELD] = to_report(self.recorder.drain())

    def divide(self, msg: Message, **_: Any) -> None:
        """Divides the requests of an open loop among the workers.

        A worker's share for a kind of user is its share of the users of that kind.
        """
        own = self._environment.runner.user_classes_count if self._environment.runner else {}
        for kind in self._environment.user_classes:
            if issubclass(kind, Visitor) and (total := msg.data[kind.__name__]):
                Visitor.shared.divide(kind.kind, own.get(kind.__name__, 0) / total)

    def _part(self) -> Part:
        """The place of this process among the workers.

        Locust tells the workers how many of them the master was told to expect.
        """
        runner, options = self._environment.runner, self._environment.parsed_options
        if options is None or not isinstance(runner, WorkerRunner):
            return Part()
        return Part(runner.worker_index, max(options.expect_workers, runner.worker_index + 1))

    def _measure(self) -> None:
        while True:
            gevent.sleep(1)
            self.recorder.measure_cpu()


class Keeper:
    """The part of a process that collects the tallies and writes the files."""

    def __init__(self, settings: Settings, environment: Environment, driver: Driver | None) -> None:
        """`driver` is the one in this process; None for a master."""
        self._settings = settings
        self._environment = environment
        self._driver = driver
        self._record = Record(settings.out, delay=0 if driver else REPORT_DELAY)
        self._has_users = True
        environment.events.spawning_complete.add_listener(self.count_users)
        environment.events.worker_report.add_listener(self.merge)
        environment.events.quitting.add_listener(self.decide_exit_code)
        environment.events.quit.add_listener(self.end)
        self._writing = gevent.spawn(self._write)

    def count_users(self, **_: Any) -> None:
        """Fails the run if some kind in the mix has no user, and tells the workers all counts.

        Requests of a kind without users would otherwise be missing without a message.
        """
        runner = self._environment.runner
        counts = runner.target_user_classes_count if runner else {}
        missing = [name for name, count in counts.items() if not count]
        if missing:
            self._has_users = False
            _log.error("--users is too small for LOAD_MIX: there is no %s", ", no ".join(missing))
        if isinstance(runner, MasterRunner):
            runner.send_message(USERS_MESSAGE, counts)

    def merge(self, data: dict[str, Any], **_: Any) -> None:
        """Takes the tallies out of a worker's report."""
        if REPORT_FIELD in data:
            self._record.add(from_report(data[REPORT_FIELD]))

    def decide_exit_code(self, **_: Any) -> None:
        """Sets the exit code: 1 for an error of ours, else 0.

        Failed requests do not count here: the judge weighs them. Errors of ours are an exception in a
        user or a listener, and a mix without the users for it.
        """
        runner = self._environment.runner
        failed = (
            log.unhandled_greenlet_exception
            or not self._has_users
            or (runner is not None and runner.exceptions)
        )
        self._environment.process_exit_code = 1 if failed else 0

    def end(self, **_: Any) -> None:
        """Writes the rest. The last reports of the workers have arrived by now."""
        self._writing.kill()
        self._collect()
        options = self._environment.parsed_options
        users = options.num_users if options else None
        self._record.close({"users": users, "mix": dict(self._settings.mix), "keys": self._settings.keys})

    def _write(self) -> None:
        while True:
            gevent.sleep(1)
            self._collect()
            self._record.write(time.time())

    def _collect(self) -> None:
        if self._driver:
            self._record.add(self._driver.recorder.drain())
