"""A whole instance whose memcached, cell, queue or origin answers anything.

Each drill puts a hostile server in the place of a real one, at its port, and reads, writes and
invalidates meanwhile. The instance stays up and within its memory, every value that it answers is
one that was written last, what needs no hostile server works as ever, and `/readyz?verbose` says
which server is in trouble. When the real server is back, the instance heals without a restart.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from cachesvc.app.embedded.server_process import ServerProcess
from cachesvc.telemetry.metrics.polled import POLL_SECONDS
from loadtests.fleet import Fleet
from loadtests.fleet_topology import port_of
from tests.contracts.test_hostile_cell import HUGE
from tests.contracts.test_hostile_http import BODIES, HEADERS, STATUS_LINES
from tests.doubles.hostile_server import HostileServer, Pieces, Relay, endless, hostile, resp, trickle
from tests.doubles.servers import redis_server
from tests.doubles.talkative_server import http_request
from tests.doubles.threaded_server import Answer
from tests.integration.test_serve import call

pytestmark = pytest.mark.faults

SOME_LIES_SECONDS = 3.0
HEALED_WITHIN_SECONDS = 30.0
MOST_MORE_KIB = 150 << 10
"""KiB by which the memory of the instance may grow during a drill."""
KEYS = [f"k{n}" for n in range(24)]

DOCUMENT = """
version: 1
regions:
  eu:
    queue: redis://127.0.0.1:1001/0
    pool: {m1: {address: "127.0.0.1:1002"}, m2: {address: "127.0.0.1:1003"}}
    instances: {eu-a: "http://127.0.0.1:1004"}
cells:
  c1: {region: eu, url: "redis://127.0.0.1:1005/0"}
  c2: {region: eu, url: "redis://127.0.0.1:1006/0"}
namespaces:
  pages: {owner: web, ttl: 5m}
  steady: {owner: web, ttl: 1s, origin: {url: "http://127.0.0.1:1007/{key}"}}
  shaky: {owner: web, ttl: 1s, origin: {url: "http://127.0.0.1:1008/{key}"}}
"""

Lie: TypeAlias = Callable[[HostileServer], Pieces]


def origin_answer(requests: BinaryIO) -> bytes | None:
    """The answer of an origin whose values are the paths."""
    path = http_request(requests)
    if path is None:
        return None
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path.encode())


def memcached_answer(requests: BinaryIO) -> bytes | None:
    """Reads one request, and answers it as an empty memcached does."""
    words = requests.readline().split()
    if not words:
        return None
    if words[0] == b"set":
        requests.read(int(words[4]) + 2)
        return b"STORED\r\n"
    return {b"get": b"END\r\n", b"mg": b"EN\r\n", b"version": b"VERSION 1.6.18\r\n"}.get(
        words[0], b"NOT_FOUND\r\n"
    )


def just(data: bytes) -> Lie:
    return lambda _: [data]


def slowly(data: bytes) -> Lie:
    return lambda server: trickle(data, server.stopping)


def for_ever(head: bytes, piece: bytes) -> Lie:
    def said(_: HostileServer) -> Iterator[bytes]:
        yield head
        yield from endless(piece)

    return said


def and_closes(data: bytes) -> Lie:
    def said(server: HostileServer) -> Iterator[bytes]:
        yield data
        server.close_all()

    return said


SHAPES: list[Any] = [
    *([], [[]], -7, b"\xff\xfe", [None] * 50, [b"e", []], [[b"1", [b"p"]]], True),
    *("ERR \x1b[2J", "READONLY no", "NOSCRIPT", "LOADING", ["NOSCRIPT"]),
]
REDIS_LIES = [
    *map(just, HUGE),
    *(just(resp(shape)) for shape in SHAPES),
    for_ever(b"*900000\r\n", b":1\r\n"),
    for_ever(b"", b"9"),
    slowly(b"$5000\r\n" + b"x" * 5000),
    and_closes(b"$10\r\nabc"),
]
LIES: dict[str, Sequence[Lie]] = {
    "memcached": [
        just(b"VALUE x 0 -20\r\n"),
        just(b"VALUE x 0 99999999999\r\n"),
        just(b"x" * 5000),
        just(b"END\r\nEND\r\n"),
        just(b"DONE\r\n"),
        just(b"VA -5 \r\nx"),
        for_ever(b"", b"9"),
        slowly(b"STAT x " + b"9" * 5000),
        and_closes(b"VALUE"),
    ],
    "cell": REDIS_LIES,
    "queue": REDIS_LIES,
    "origin": [
        *(and_closes(b"\r\n".join([status, *HEADERS[n : n + 3], b"", b""]) + BODIES[n % len(BODIES)])
          for n, status in enumerate(STATUS_LINES)),
        for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        for_ever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000),
    ],
}  # fmt: skip


class Origin:
    """An origin that can be stopped and started, as the other servers can."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._running = ExitStack()

    def start(self) -> None:
        self._running.enter_context(hostile(origin_answer, self.port))

    def stop(self) -> None:
        self._running.close()


class Field:
    """One instance and the servers behind it."""

    def __init__(self, fleet: Fleet, origins: Mapping[str, Origin]) -> None:
        self.fleet = fleet
        self.origins = origins
        self.url = fleet.url("eu-a")
        self.values = {key: {b""} for key in KEYS}
        """The values that a key may have: the last one written, and those that failed since."""
        self.writes = 0

    def write(self, key: str) -> bool:
        self.writes += 1
        value = b"%d of %b" % (self.writes, key.encode())
        status, body = call(f"{self.url}/v1/pages/{key}", "PUT", value)
        assert status in (204, 503), (status, body)
        # A write that failed may be stored all the same.
        self.values[key] = {value} if status == 204 else {*self.values[key], value}
        return status == 204

    def read(self, key: str) -> None:
        """Reads a key: nothing, a failure that is told, or a value that it may have."""
        status, body = call(f"{self.url}/v1/pages/{key}")
        assert status in (200, 404, 503), (status, body)
        assert status != 200 or body in self.values[key], (key, body, self.values[key])

    def invalidate(self, keys: Sequence[str], wait: str = "none") -> bool:
        body = json.dumps({"namespace": "pages", "keys": keys, "wait": wait}).encode()
        request = Request(f"{self.url}/v1/invalidations", body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=15) as answer:
                reached: bool = json.load(answer)["reached"]
        except HTTPError as answer:
            if answer.code != 503:
                raise
            return False
        return reached

    def troubles(self) -> list[str]:
        found: list[str] = json.loads(call(f"{self.url}/readyz?verbose")[1])["troubles"]
        return found

    def resident_kib(self) -> int:
        status = Path(f"/proc/{self.fleet.instances['eu-a'].pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    def failures_of_origin(self) -> float:
        text = call(f"{self.url}/metrics")[1].decode()
        (line,) = [
            line for line in text.splitlines() if line.startswith('cachesvc_loads_total{outcome="failed"}')
        ]
        return float(line.split()[-1])

    def place(self, kind: str, name: str, behind: Relay) -> tuple[ServerProcess | Origin, int, Answer]:
        """Returns a server, its port, and how a server in its place tells the truth."""
        if kind == "origin":
            origin = self.origins[name]
            return origin, origin.port, origin_answer
        group = {"memcached": self.fleet.memcached, "cell": self.fleet.cells, "queue": self.fleet.queues}[
            kind
        ]
        port = self.fleet.port(f"{kind}-{name}")
        return group[name], port, memcached_answer if kind == "memcached" else behind.answer

    def use(self, rng: random.Random) -> None:
        """Uses what needs the hostile server and what does not; the second works as ever."""
        key = rng.choice(KEYS)
        self.read(key)
        if rng.random() < 0.3:
            self.write(key)
        if rng.random() < 0.1:
            self.invalidate([key])
        path = rng.choice(KEYS)
        assert call(f"{self.url}/v1/steady/{path}") == (200, f"/{path}".encode())
        call(f"{self.url}/v1/shaky/{path}")
        assert call(f"{self.url}/livez")[0] == 200

    def is_well(self) -> bool:
        """True if nothing is in trouble, and writes, reads, loads and invalidations work."""
        if self.troubles() or not all(self.write(key) for key in KEYS):
            return False
        found = [call(f"{self.url}/v1/pages/{key}") for key in KEYS]
        path = f"well-{self.writes}"
        origins = [call(f"{self.url}/v1/{name}/{path}")[1] for name in ("steady", "shaky")]
        return (
            [{body} for _, body in found] == [self.values[key] for key in KEYS]
            and origins == [f"/{path}".encode()] * 2
            and self.invalidate(KEYS[:4], "region")
            and [call(f"{self.url}/v1/pages/{key}")[0] for key in KEYS[:5]] == [404] * 4 + [200]
        )

    def heals(self) -> None:
        end = time.monotonic() + HEALED_WITHIN_SECONDS
        while not self.is_well():
            assert time.monotonic() < end, self.troubles()
            for n in range(8):  # an origin is found well by loads alone, and let in by shares
                call(f"{self.url}/v1/shaky/again-{time.monotonic():.3f}-{n}")
            time.sleep(0.3)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    root = tmp_path_factory.mktemp("hostile")
    document = root / "topology.yaml"
    document.write_text(DOCUMENT)
    fleet = Fleet(document, root / "run")
    origins = {
        name: Origin(port_of(namespace.origin.url))
        for name, namespace in fleet.topology.namespaces.items()
        if namespace.origin
    }
    with ExitStack() as stack:
        for origin in origins.values():
            origin.start()
            stack.callback(origin.stop)
        yield Field(stack.enter_context(fleet), origins)


@pytest.fixture(scope="module")
def behind() -> Iterator[Relay]:
    """The truth that a hostile Redis tells now and then: that of another, real server."""
    with redis_server() as real:
        yield Relay(str(real.where))


@pytest.mark.parametrize(
    ("kind", "name", "trouble", "all_lies_seconds"),
    [
        ("memcached", "m1", "memcached m1 does not answer", 3.0),
        ("cell", "c1", "cell c1 does not answer", POLL_SECONDS + 2),
        ("queue", "eu", "the queue of eu does not answer", 3.0),
        ("origin", "shaky", "", 3.0),
    ],
)
def test_a_hostile_server_does_no_harm_beyond_its_part(
    field: Field, behind: Relay, kind: str, name: str, trouble: str, all_lies_seconds: float
) -> None:
    field.heals()
    real, port, truth = field.place(kind, name, behind)
    before_kib, failures = field.resident_kib(), field.failures_of_origin()
    rng, seen = random.Random(kind), set[str]()
    real.stop()
    try:
        with hostile(truth, port) as server:
            share = 1.0
            server.always = lambda: rng.choice(LIES[kind])(server) if rng.random() < share else ()
            began = time.monotonic()
            while (passed := time.monotonic() - began) < all_lies_seconds + SOME_LIES_SECONDS:
                share = 1.0 if passed < all_lies_seconds else 0.5
                field.use(rng)
                seen.update(field.troubles())
    finally:
        real.start()
    assert field.fleet.instances["eu-a"].is_running
    grown_kib = field.resident_kib() - before_kib
    print(f"{kind}: {grown_kib} KiB more, seen {seen}")
    assert grown_kib < MOST_MORE_KIB
    assert trouble in seen if trouble else field.failures_of_origin() > failures
    field.heals()
