"""Where a scenario takes place: two regions with real servers and the reference origin, and the folder that keeps what happened.

.run/load/<scenario>/   servers.jsonl  marks.json  verdict.json  plot.svg  plot.html
    <leg>/              samples.jsonl  summary.json  locust.html  locust_*.csv  locust.log
    fleet/              the topology as it was run, and the log of every server
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3
import yaml

from cachesvc.app.embedded.server_process import ServerProcess
from loadtests.fleet import Fleet, empty_run_dir
from loadtests.fleet_servers import REPOSITORY
from loadtests.load.judge_rows import Mark
from loadtests.load.runner_cores import Apart
from loadtests.scenarios.scenario import Scenario

TWO_REGIONS = REPOSITORY / "config" / "two-regions.yaml"
ORIGIN_OF = "docs"
"""The namespace of the document whose origin the one under load has, too."""
NAMESPACE = "load"
SETTINGS = {"CACHESVC_L1_BUDGET": "1MiB"}
"""Room for about a thousand documents: half of the usual keys, so that L2 and L3 have something to answer."""


class Stage:
    """Context manager: all servers are ready inside, nothing runs outside. From the main thread only, except for reading
    `marks`."""

    namespace = NAMESPACE

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.folder = empty_run_dir(folder)
        self.marks: list[Mark] = []
        environ = {**SETTINGS, **scenario.settings}
        self.fleet = Fleet(self._document(scenario), self.folder / "fleet", environ=environ, with_origin=True)
        self._bottleneck = scenario.bottleneck
        self._behaviour = scenario.origin
        self._open = ExitStack()
        self._http = urllib3.PoolManager(timeout=5.0, retries=False)

    @property
    def origin_url(self) -> str:
        return f"http://127.0.0.1:{self.fleet.port('origin')}"

    def server(self, name: str) -> ServerProcess:
        return next(server for server in self.fleet.servers() if server.name == name)

    def instances(self) -> Sequence[str]:
        return [server.name for server in self.fleet.instances.values()]

    def urls(self) -> Sequence[str]:
        """Of those that are asked."""
        return [
            self.fleet.url(name)
            for name in ([self._bottleneck] if self._bottleneck else self.fleet.instances)
        ]

    def tell_origin(self, behaviour: Mapping[str, Any]) -> None:
        answer = self._http.request("POST", f"{self.origin_url}/_control", body=json.dumps(behaviour))
        if answer.status != 200:
            raise ValueError(f"the origin does not take {dict(behaviour)}: {answer.data.decode()}")

    @contextmanager
    def marked(self, what: str) -> Iterator[None]:
        mark = self.mark(what)
        try:
            yield
        finally:
            mark.ended = time.time()

    def mark(self, what: str) -> Mark:
        """From now on, until its `ended` is set."""
        mark = Mark(what, time.time())
        self.marks.append(mark)
        return mark

    def __enter__(self) -> "Stage":
        with ExitStack() as opened:
            opened.callback(self._http.clear)
            apart = opened.enter_context(Apart()) if self._bottleneck else None
            opened.enter_context(self.fleet)
            if apart:
                # With what it asks: beside a busy load generator it would wait for that, and not be the one that is slow.
                for server in (
                    *self.fleet.memcached.values(),
                    *self.fleet.cells.values(),
                    self.fleet.instances[self._bottleneck],
                ):
                    apart.move(server.pid)
            self.tell_origin(self._behaviour)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _document(self, scenario: Scenario) -> Path:
        """The two regions with the namespace of the scenario, whose origin is at the one address that all are given."""
        document = yaml.safe_load(TWO_REGIONS.read_text())
        namespaces = document["namespaces"]
        namespaces[NAMESPACE] = {
            "owner": "load",
            "origin": namespaces[ORIGIN_OF]["origin"],
            **scenario.namespace,
        }
        path = self.folder / "two-regions.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path
