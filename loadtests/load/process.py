"""One locust process: what it does when the load begins, each second, at each report, and when it ends.

A `Driver` has the users and counts, a `Keeper` has the files. A process alone is both; with `--master` it keeps, with `--worker`
it drives, and its tallies go along with its reports to the master. So `LOAD_OUT` is written by exactly one process.
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
"""Of a worker's report."""
USERS_MESSAGE = "cachesvc_users"
"""The master tells the workers how many users there are of each class, when all of them are there."""

_log = logging.getLogger(__name__)


def attach(settings: Settings, environment: Environment) -> None:
    """To locust's events, when the runner is known and nothing has begun. Raises `ChangeError` if the origin is out of reach."""
    driver = None if isinstance(environment.runner, MasterRunner) else Driver(settings, environment)
    if not isinstance(environment.runner, WorkerRunner):
        if settings.value_bytes:
            Changes(settings.origin, timeout=settings.timeout).resize(settings.value_bytes)
        Keeper(settings, environment, driver)


class Driver:
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
        reason = str(exception) if exception else ""
        self.recorder.request(
            f"{request_type} {name}", response_time / 1e3, reason, context.get("turn", CLOSED)
        )

    def report(self, data: dict[str, Any], **_: Any) -> None:
        data[REPORT_FIELD] = to_report(self.recorder.drain())

    def divide(self, msg: Message, **_: Any) -> None:
        """An open loop's requests among the workers, by the users that each has of those in all."""
        own = self._environment.runner.user_classes_count if self._environment.runner else {}
        for kind in self._environment.user_classes:
            if issubclass(kind, Visitor) and (total := msg.data[kind.__name__]):
                Visitor.shared.divide(kind.kind, own.get(kind.__name__, 0) / total)

    def _part(self) -> Part:
        """Which of the workers this is. Locust tells them how many the master was told to expect."""
        runner, options = self._environment.runner, self._environment.parsed_options
        if options is None or not isinstance(runner, WorkerRunner):
            return Part()
        return Part(runner.worker_index, max(options.expect_workers, runner.worker_index + 1))

    def _measure(self) -> None:
        while True:
            gevent.sleep(1)
            self.recorder.measure_cpu()


class Keeper:
    def __init__(self, settings: Settings, environment: Environment, driver: Driver | None) -> None:
        """`driver`: the one in this process, if it is alone."""
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
        """Requests of a kind that has no user would silently not be made."""
        runner = self._environment.runner
        counts = runner.target_user_classes_count if runner else {}
        missing = [name for name, count in counts.items() if not count]
        if missing:
            self._has_users = False
            _log.error("--users is too small for LOAD_MIX: there is no %s", ", no ".join(missing))
        if isinstance(runner, MasterRunner):
            runner.send_message(USERS_MESSAGE, counts)

    def merge(self, data: dict[str, Any], **_: Any) -> None:
        if REPORT_FIELD in data:
            self._record.add(from_report(data[REPORT_FIELD]))

    def decide_exit_code(self, **_: Any) -> None:
        """Failed requests are for a judge to weigh. What fails the run itself is our own error: a user's, a listener's, a mix
        without the users for it.
        """
        runner = self._environment.runner
        failed = (
            log.unhandled_greenlet_exception
            or not self._has_users
            or (runner is not None and runner.exceptions)
        )
        self._environment.process_exit_code = 1 if failed else 0

    def end(self, **_: Any) -> None:
        """The last reports of the workers have come by now."""
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
