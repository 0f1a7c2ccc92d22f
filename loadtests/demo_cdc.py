"""Changes rows in PostgreSQL, and shows the page change in two regions.

Run it with `make demo-cdc`. A throw-away PostgreSQL, two regions with four instances and a reader
of its log run on free loopback ports; all of them are stopped at the end. The exit code is 0 if
every step went as it must.
"""

import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from loadtests.fleet import Fleet
from loadtests.fleet_servers import REPOSITORY, module_server
from loadtests.fleet_topology import free_ports
from loadtests.postgres import Postgres, postgres

PATIENCE_SECONDS = 30.0
REGIONS = {"eu": "eu-b", "us": "us-a"}
"""An instance of each region."""
PAGES = {"owner": "web", "sources": [{"source": "public.pages", "key": "page:{id}"}]}
TABLE = "CREATE TABLE pages (id int PRIMARY KEY, title text NOT NULL)"


class Tour:
    """The steps. `failed` counts those that went wrong."""

    def __init__(self, fleet: Fleet, database: Postgres) -> None:
        self._fleet = fleet
        self._database = database
        self.failed = 0

    def walk(self) -> None:
        """Changes a row, names a key in the outbox, and empties the table."""
        self._sql("INSERT INTO pages VALUES (1, 'one')")
        self._cached("one")
        self._sql("UPDATE pages SET title = 'two' WHERE id = 1")
        self._gone("the page is not answered any more")
        self._cached("two")
        told = '{"changes": [{"namespace": "pages", "keys": ["page:1"]}]}'
        self._sql(f"SELECT pg_logical_emit_message(true, 'cachesvc', '{told}')")
        self._gone("a message of the outbox names the page")
        self._cached("two")
        self._sql("TRUNCATE pages")
        self._gone("TRUNCATE ends the whole namespace")

    def _sql(self, statement: str) -> None:
        print(f"\n       psql> {statement}", flush=True)
        self._database.psql(statement)

    def _cached(self, title: str) -> None:
        """Stores the page as an application does that has read the row, until all regions have it."""

        def is_held() -> bool:
            self._ask("PUT", "eu-a", title.encode())
            return set(map(self._page, REGIONS.values())) == {title}

        self._until(f"the application has cached {title!r}", is_held)

    def _gone(self, what: str) -> None:
        self._until(what, lambda: set(map(self._page, REGIONS.values())) == {""})

    def _page(self, instance: str) -> str:
        return self._ask("GET", instance)

    def _ask(self, method: str, instance: str, body: bytes | None = None) -> str:
        url = f"{self._fleet.url(instance)}/v1/pages/page:1"
        try:
            request = urllib.request.Request(url, body, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            error.close()
            return ""

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not (held := holds()) and time.monotonic() - began < PATIENCE_SECONDS:
            time.sleep(0.005)
        self.failed += not held
        pages = ", ".join(f"{region} {self._page(at) or '404'}" for region, at in REGIONS.items())
        took = time.monotonic() - began
        print(f"{'ok  ' if held else 'NOT '} {what}: {pages}  (after {took:.2f} s)", flush=True)


def reader(fleet: Fleet, database: Postgres) -> ServerProcess:
    """The process that reads the log for both regions, through the queue of `eu`."""
    (port,) = free_ports(1)
    given = ["--topology", str(fleet.topology_path), "--region", "eu", "--listen", f"127.0.0.1:{port}"]

    def is_ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    words = ["cachesvc", "cdc", "--postgres", database.url, *given]
    return module_server("cdc", words, is_ready, fleet.run_dir)


def main() -> int:
    """Starts everything, walks the tour, stops everything; the process's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="cachesvc-demo-cdc-") as run_dir, postgres() as database:
            print("starting PostgreSQL and two regions: four instances and what is behind them …", flush=True)
            database.psql(TABLE)
            document = REPOSITORY / "config/two-regions.yaml"
            with Fleet(document, Path(run_dir) / "run", namespaces={"pages": PAGES}) as fleet:
                reading = reader(fleet, database)
                setup = module_server("setup", [*setup_words(fleet, database)], lambda: False, fleet.run_dir)
                setup.spawn()
                while setup.is_running:
                    time.sleep(0.05)
                print("\n".join(f"       {line}" for line in setup.log.read_text().splitlines()))
                reading.start()
                try:
                    tour = Tour(fleet, database)
                    tour.walk()
                finally:
                    reading.stop()
    except KeyboardInterrupt:
        return 130
    except ServerStartError as error:
        print(f"demo-cdc: {error}", file=sys.stderr)
        return 1
    print(f"\n{tour.failed} steps did not hold" if tour.failed else "\nevery step held; all is stopped")
    return 1 if tour.failed else 0


def setup_words(fleet: Fleet, database: Postgres) -> list[str]:
    """The arguments of `python -m` that prepare the database."""
    given = ["--postgres", database.url, "--topology", str(fleet.topology_path)]
    return ["cachesvc", "cdc", "setup", *given, "--role", "reader", "--apply"]


if __name__ == "__main__":
    sys.exit(main())
