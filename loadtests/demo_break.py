"""Breaks a memcached, a cell and a queue in turn, and shows what is answered.

Run it with `make demo-break`. Two regions with four instances run on free loopback ports, each
server a process of its own, and all of them are stopped at the end. Each answer is checked: the
exit code is 0 if every step went as it must, and no answer is ever the value from before a change.
"""

import json
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cachesvc.app.embedded.server_process import ServerStartError
from loadtests.fleet import Fleet
from loadtests.fleet_servers import REPOSITORY

INSTANCES = ("eu-a", "eu-b", "us-a", "us-b")
PATIENCE_SECONDS = 30.0
MAX_LAG_SECONDS = 2.0
"""The `max_lag` of the namespace: no instance answers what was changed longer ago."""


class Answer(NamedTuple):
    """An answer over HTTP."""

    status: int
    body: bytes
    cache_status: str = ""

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def __str__(self) -> str:
        problem = self.document.get("type", "").rpartition("/")[2]
        said = problem or (self.body.decode() if len(self.body) < 20 else self.cache_status)
        return f"{self.status} {said}".strip()


class Breaking:
    """The steps, over HTTP. `failed` counts those that went wrong."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.failed = 0

    def break_all(self) -> None:
        """Breaks one server of each kind, and waits each time until all is well again."""
        self._until("the instances accept changes", lambda: self._ask("PUT", "eu-a", "ready", b"x"), _is_done)
        self._memcached()
        self._cell()
        self._queue()

    # one kind of server each ----------------------------------------------------------------------

    def _memcached(self) -> None:
        """A hung memcached holds the old value, and comes back with it."""
        self._tell("\n1. A memcached hangs, and misses a change")
        self._write("old")
        held = self._until(
            "the copy is in the region's memcached",
            lambda: self._ask("GET", "eu-b", "greeting:explain"),
            lambda answer: bool(_tier(answer, "l2").get("held")),
        )
        server = self._fleet.memcached[held.document["memcached_server"]]
        self._tell(f"       kill -STOP {server.pid}  ({server.name})")
        server.kill(signal.SIGSTOP)
        try:
            self._check("DELETE through us-a: accepted, without it", self._ask("DELETE", "us-a"), _is_applied)
            self._nobody_has("old", "while it hangs", within=MAX_LAG_SECONDS)
        finally:
            self._tell(f"       kill -CONT {server.pid}")
            server.kill(signal.SIGCONT)
        self._nobody_has("old", "now that it is back, with the old value")
        told = _tier(self._ask("GET", "eu-b", "greeting:explain"), "l2")
        if told.get("held"):
            self._tell(f"       its copy: {told.get('standing')}, {told.get('rule')}")
        self._heals("new", "cachesvc-l2; hit")

    def _cell(self) -> None:
        """A dead home cell: hits go on, a change is kept for it, and it comes back empty."""
        self._write("old")
        home = self._ask("GET", "eu-a", "greeting:explain").document["home_cell"]["name"]
        server = self._fleet.cells[home]
        self._tell(f"\n2. The home cell of the key dies\n       kill -KILL {server.pid}  ({server.name})")
        server.kill(signal.SIGKILL)
        try:
            self._check("GET: copies near the reader go on answering", self._ask("GET", "eu-a"), _has(b"old"))
            receipt = self._check(
                "DELETE: its fence is out, the cell hears of it later", self._ask("DELETE", "us-a"), _is_kept
            )
            self._nobody_has("old", "while the cell is away", within=MAX_LAG_SECONDS)
            refused = self._ask("PUT", "eu-a", body=b"new")
            self._check("PUT: not stored, and it says so", refused, lambda answer: answer.status == 503)
        finally:
            server.start()
            self._tell(f"       {server.name} runs again, pid {server.pid}, and is empty")
        self._until(
            "the cell has heard of the change",
            lambda: self._send(f"{self._fleet.url('us-a')}/v1/invalidations/{receipt.document['id']}"),
            lambda answer: answer.document.get("state") == "done",
        )
        self._nobody_has("old", "and has not brought it back")
        self._heals("new", "hit")

    def _queue(self) -> None:
        """A dead queue: no change is accepted, and readers stop believing old copies."""
        self._write("old")
        server = self._fleet.queues["eu"]
        self._tell(f"\n3. The queue of region eu dies\n       kill -KILL {server.pid}  ({server.name})")
        server.kill(signal.SIGKILL)
        try:
            self._check(
                "DELETE through eu-a: not accepted, and it says so",
                self._ask("DELETE", "eu-a"),
                lambda answer: answer.status == 503,
            )
            self._until(
                "GET: a copy is answered for max_lag (2 s) at most, then it is not believed any more",
                lambda: self._ask("GET", "eu-a"),
                lambda answer: answer.status == 404,
            )
        finally:
            server.start()
            self._tell(f"       {server.name} runs again, pid {server.pid}")
        self._until("DELETE is accepted", lambda: self._ask("DELETE", "eu-a"), _is_done)
        self._nobody_has("old", "after that", within=MAX_LAG_SECONDS)
        self._heals("new", "hit")

    # what the steps are made of -------------------------------------------------------------------

    def _write(self, value: str) -> None:
        """Stores the value until all instances answer it, so that all tiers have it.

        After a queue was lost, fences on whole namespaces follow: a value that was stored before them is
        refused, and is stored once more.
        """

        def written() -> Answer:
            answer = self._ask("PUT", "eu-a", body=value.encode())
            reads = [self._ask("GET", instance).body for instance in INSTANCES]
            return answer if reads == [value.encode()] * len(INSTANCES) else Answer(0, b"not everywhere yet")

        self._until(f"PUT {value!r}, read through all four instances", written, _is_done)

    def _nobody_has(self, value: str, when: str, *, within: float = 0.0) -> None:
        """Reads through all instances; `within`: the seconds that a fence has to reach them."""
        began = time.monotonic()
        while True:
            answers = {instance: self._ask("GET", instance) for instance in INSTANCES}
            held = any(answer.body == value.encode() for answer in answers.values())
            took = time.monotonic() - began
            if not held or took > within:
                break
            time.sleep(0.01)
        told = ", ".join(f"{instance} {answer}" for instance, answer in answers.items())
        self._result(
            not held, f"GET everywhere, {when}: nobody has {value!r}", f"{told}  (after {took:.2f} s)"
        )

    def _heals(self, value: str, part: str) -> None:
        """Waits until a new value is stored, and answered everywhere from a tier."""
        self._write(value)
        self._until(
            f"all is well again: {part}",
            self._fresh_read,
            lambda answer: part in answer.cache_status,
        )

    def _fresh_read(self) -> Answer:
        """The answer of eu-b for a value that was stored through eu-a just now."""
        key = f"healed-{time.monotonic_ns()}"
        self._ask("PUT", "eu-a", key, b"x")
        time.sleep(0.05)  # the copy goes to memcached behind the answer
        return self._ask("GET", "eu-b", key)

    def _check(self, what: str, answer: Answer, holds: Callable[[Answer], bool]) -> Answer:
        self._result(holds(answer), what, str(answer))
        return answer

    def _until(self, what: str, ask: Callable[[], Answer], holds: Callable[[Answer], bool]) -> Answer:
        """Asks until the answer is right, for half a minute at most."""
        began = time.monotonic()
        while not holds(answer := ask()) and time.monotonic() - began < PATIENCE_SECONDS:
            time.sleep(0.1)
        took = time.monotonic() - began
        self._result(holds(answer), what, f"{answer}  (after {took:.1f} s)")
        return answer

    def _ask(self, method: str, instance: str, key: str = "greeting", body: bytes | None = None) -> Answer:
        return self._send(f"{self._fleet.url(instance)}/v1/pages/{key}", method, body)

    @staticmethod
    def _send(url: str, method: str = "GET", body: bytes | None = None) -> Answer:
        request = urllib.request.Request(url, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
                return Answer(reply.status, reply.read(), reply.headers.get("Cache-Status", ""))
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.read(), error.headers.get("Cache-Status", ""))

    def _result(self, held: bool, what: str, told: str) -> None:
        self.failed += not held
        self._tell(f"{'ok  ' if held else 'NOT '} {what}\n       {told}")

    @staticmethod
    def _tell(line: str) -> None:
        print(line, flush=True)


def _tier(answer: Answer, tier: str) -> dict[str, Any]:
    found: dict[str, Any] = answer.document.get("tiers", {}).get(tier, {})
    return found


def _is_done(answer: Answer) -> bool:
    return answer.status in (200, 204)


def _is_applied(answer: Answer) -> bool:
    return answer.document.get("applied") is True


def _is_kept(answer: Answer) -> bool:
    return answer.document.get("applied") is False


def _has(value: bytes) -> Callable[[Answer], bool]:
    return lambda answer: answer.body == value


def main() -> int:
    """Starts the two regions, breaks them, stops them; the process's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="cachesvc-demo-break-") as run_dir:
            print(
                "starting two regions: four instances, four memcached, four cells, two queues …", flush=True
            )
            with Fleet(REPOSITORY / "config/two-regions.yaml", Path(run_dir) / "run") as fleet:
                print(fleet.table(), "\n", flush=True)
                breaking = Breaking(fleet)
                breaking.break_all()
    except KeyboardInterrupt:
        return 130
    except ServerStartError as error:
        print(f"demo-break: {error}", file=sys.stderr)
        return 1
    print(
        f"\n{breaking.failed} steps did not hold" if breaking.failed else "\nevery step held; all is stopped"
    )
    return 1 if breaking.failed else 0


if __name__ == "__main__":
    sys.exit(main())
