"""A real Prometheus on a free loopback port. All calls block.

Its data directory is removed at the end of the `with` block.
"""

import json
import shutil
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

from cachesvc.app.embedded.server_process import ServerProcess
from loadtests.fleet_topology import free_ports


class QueryError(Exception):
    """Prometheus refused the expression."""


class Sample(Struct, frozen=True):
    """One value of an answer, with the labels of its series."""

    labels: dict[str, str]
    value: float


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[Sample]:
        """The values of an instant vector or a scalar now. Raises `QueryError`."""
        found = self._ask("query", query=expression)
        result = (
            [({}, found["result"])]
            if found["resultType"] == "scalar"
            else [(s["metric"], s["value"]) for s in found["result"]]
        )
        return [Sample(labels, float(value)) for labels, (_, value) in result]

    def rules(self) -> list[dict[str, Any]]:
        """All rules of all groups, with `health` and `lastError`."""
        return [rule for group in self._ask("rules", method="GET")["groups"] for rule in group["rules"]]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing: labels, annotations, state."""
        return list(self._ask("alerts", method="GET")["alerts"])

    def wait_for(
        self, expression: str, holds: Callable[[Sequence[Sample]], bool] = bool, within_seconds: float = 30
    ) -> None:
        """Waits until the answer to the expression is as wanted.

        It is as wanted if it is not empty, or as `holds` decides. Fails after `within_seconds`.
        """
        give_up_at = time.monotonic() + within_seconds
        while not holds(found := self.query(expression)):
            assert time.monotonic() < give_up_at, f"{expression} is still {found}"
            time.sleep(0.2)  # the scrapes are another process's

    def _ask(self, endpoint: str, *, method: str = "POST", **form: str) -> Any:
        body = urllib.parse.urlencode(form).encode() if method == "POST" else None
        request = urllib.request.Request(f"{self.url}/api/v1/{endpoint}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                document = json.load(answer)
        except urllib.error.HTTPError as answer:
            raise QueryError(f"{form}: {json.load(answer)['error']}") from answer
        return document["data"]


@contextmanager
def prometheus(configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, which has the form of `prometheus.yaml`.

    Paths in the configuration must be absolute.
    """
    directory = Path(tempfile.mkdtemp(prefix="cachesvc-prometheus-"))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    config = directory / "prometheus.yaml"
    config.write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    process = ServerProcess("prometheus", command, is_ready=lambda: _is_ready(url), run_dir=directory)
    try:
        process.start()
        yield Prometheus(url)
    finally:
        process.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:  # it listens, and reads its log of writes still
        return False
