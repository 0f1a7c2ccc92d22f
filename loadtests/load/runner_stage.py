"""The stage of a scenario: two regions with real servers, and the reference origin.

The stage also has the folder with the record of the run:

    .run/load/<scenario>/   servers.jsonl  marks.json  verdict.json  plot.svg  plot.html
                            neighbour.jsonl, if there is one
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

import msgspec
import urllib3
import yaml

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from loadtests.documents import document
from loadtests.fleet import Fleet, empty_run_dir
from loadtests.fleet_servers import REPOSITORY
from loadtests.load.judge_rows import Mark
from loadtests.load.keys import key_of
from loadtests.load.runner_cores import Apart
from loadtests.origin import ASKED_FOR
from loadtests.scenarios.scenario import Scenario

TWO_REGIONS = REPOSITORY / "config" / "two-regions.yaml"
MSGPACK = "application/msgpack"
ORIGIN_OF = "docs"
"""The namespace of the document whose origin the namespace under load shares."""
NAMESPACE = "load"
SETTINGS = {"CACHESVC_L1_BUDGET": "1MiB"}
"""Room for about a thousand documents.

That is half of the usual keys, so that L2 and L3 have something to answer.
"""


VALUE_BYTES = 512
STORED_AT_ONCE = 500


class Stage:
    """A context manager: all servers are ready inside, none runs outside.

    To be used on the main thread only; `marks` may be read on any thread.
    """

    namespace = NAMESPACE

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.folder = empty_run_dir(folder)
        self.marks: list[Mark] = []
        environ = {**SETTINGS, **scenario.settings}
        self.fleet = Fleet(self._document(scenario), self.folder / "fleet", environ=environ, with_origin=True)
        self._bottleneck = scenario.bottleneck
        self._behaviour = scenario.origin
        self._stored = scenario.stored
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
        """The base URLs of the instances that get the load."""
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
        """Records that `what` begins now; it lasts until the mark's `ended` is set."""
        mark = Mark(what, time.time())
        self.marks.append(mark)
        return mark

    def __enter__(self) -> "Stage":
        with ExitStack() as opened:
            opened.callback(self._http.clear)
            apart = opened.enter_context(Apart()) if self._bottleneck else None
            opened.enter_context(self.fleet)
            if apart:
                # The instance shares its core with the servers that it asks. If they were beside the busy
                # load generator, the instance would wait for them and would not be the slow part.
                for server in (
                    *self.fleet.memcached.values(),
                    *self.fleet.cells.values(),
                    self.fleet.instances[self._bottleneck],
                ):
                    apart.move(server.pid)
            self.tell_origin(self._behaviour)
            for namespace, count in self._stored.items():
                self._store(namespace, count)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _store(self, namespace: str, count: int) -> None:
        """Writes the documents of the first `count` keys into a namespace, as the origin has them."""
        for first in range(0, count, STORED_AT_ONCE):
            keys = map(key_of, range(first, min(first + STORED_AT_ONCE, count)))
            items = [{"key": key, "value": document(key, 1, VALUE_BYTES)} for key in keys]
            answer = self._http.request(
                "POST",
                f"{self.urls()[0]}/v1/{namespace}:put",
                body=msgspec.msgpack.encode({"items": items}),
                headers={"Content-Type": MSGPACK, "Accept": MSGPACK},
            )
            results = msgspec.msgpack.decode(answer.data)["results"] if answer.status == 200 else []
            if not results or any(result["outcome"] != "stored" for result in results):
                raise ServerStartError(
                    f"{namespace} takes no documents: {answer.status} {answer.data[:300]!r}"
                )

    def _document(self, scenario: Scenario) -> Path:
        """Writes the two regions' document with the scenario's namespace, and returns its path.

        The namespace's origin is at the one address that all namespaces load from.
        """
        regions = yaml.safe_load(TWO_REGIONS.read_text())
        namespaces = regions["namespaces"]
        origin = namespaces[ORIGIN_OF]["origin"]
        namespaces[NAMESPACE] = {"owner": "load", "origin": origin, **scenario.namespace}
        for name, fields in scenario.others.items():
            own = {**origin, "url": f"{origin['url']}?{ASKED_FOR}={name}"}
            namespaces[name] = {"owner": "load", "origin": own, **fields}
        path = self.folder / "two-regions.yaml"
        path.write_text(yaml.safe_dump(regions, sort_keys=False))
        return path
