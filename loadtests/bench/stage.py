"""The warm servers of a run: the service in several set-ups, and the rivals.

In each set-up one known tier answers every read. A server is started when it is first asked for
and then stays up, so that both sides of every pair are warm. Nothing is timed before its answers
were checked: the right bytes, from the tier that the row claims (`Cache-Status`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

import msgspec
import trustme
from pymemcache import Client

from loadtests.bench.figures import BenchError
from loadtests.bench.keyspace import BATCH, MSGPACK, NAMESPACE, batches, path_of, values
from loadtests.bench.servers import Server, Servers, free_port
from loadtests.load.answers import answered_by

BEARER = "cachesvc_" + "b" * 43
"""The token of the caller in set-ups with callers; it has the length of a real one."""
_LEAST_SHARE = 0.9
"""The share of the sampled keys that the claimed tier must answer.

It is below 1 because a tiny L1 holds a few of the keys at times.
"""


@dataclass(frozen=True)
class SetUp:
    """A service that is arranged so that `tier` answers."""

    tier: str
    l1_entries: int
    has_pool: bool
    is_sealed: bool = False
    is_encrypted: bool = False
    has_callers: bool = False
    """True: `BEARER` may read, and callers without an identity may do everything."""
    limits: bool | None = None
    """True: rates, a room in L1, spread hot keys and the report. False: none of them.

    None: as the defaults are.
    """
    trace_ratio: float | None = None
    """None: all telemetry but `/metrics` is off.

    Otherwise the spans of this share of requests are exported, and metrics every 3 s.
    """

    @property
    def name(self) -> str:
        """The name for files and instances."""
        sealed = self.tier + ("-sealed" if self.is_sealed else "") + ("-tls" if self.is_encrypted else "")
        sealed += "-callers" if self.has_callers else ""
        if self.limits is not None:
            sealed += "-limits" if self.limits else "-no-limits"
        return sealed if self.trace_ratio is None else f"{sealed}-traced-{self.trace_ratio:g}"


SET_UPS = {
    "l1": SetUp("l1", 4_000_000, has_pool=True),
    "l1_tls": SetUp("l1", 4_000_000, has_pool=True, is_encrypted=True),
    "l1_callers": SetUp("l1", 4_000_000, has_pool=True, has_callers=True),
    "l1_limits": SetUp("l1", 4_000_000, has_pool=True, limits=True),
    "l1_no_limits": SetUp("l1", 4_000_000, has_pool=True, limits=False),
    # A walk over 2,000 keys never finds the next key in an LRU of 16 entries.
    "l2": SetUp("l2", 16, has_pool=True),
    "l2_sealed": SetUp("l2", 16, has_pool=True, is_sealed=True),
    "l3": SetUp("l3", 16, has_pool=False),
    "l1_traced_some": SetUp("l1", 4_000_000, has_pool=True, trace_ratio=0.01),
    "l1_traced_all": SetUp("l1", 4_000_000, has_pool=True, trace_ratio=1.0),
    "l2_traced_some": SetUp("l2", 16, has_pool=True, trace_ratio=0.01),
    "l2_traced_all": SetUp("l2", 16, has_pool=True, trace_ratio=1.0),
}


@dataclass(frozen=True)
class Service:
    """A running service in which every key is stored."""

    server: Server
    tier: str
    headers: list[tuple[str, str]]
    """The headers of one answer; the rivals answer with them, too."""

    @property
    def url(self) -> str:
        return self.server.url

    def check_tier(self, *, every: int) -> None:
        """Reads each `every`th key.

        Raises `BenchError` at a wrong body, or if the claimed tier does not answer.
        """
        found = [self._read(key, value) for key, value in list(values().items())[::every]]
        if found.count(self.tier) < _LEAST_SHARE * len(found):
            seen = {tier: found.count(tier) for tier in sorted(set(found))}
            raise BenchError(f"{self.tier} was to answer, but of {len(found)} keys it was {seen}")

    def check_batch_tier(self) -> None:
        """Checks the same through `:get`, for every key."""
        held = values()
        for batch in batches(list(held)):
            results = _post(self.server, ":get", {"keys": batch})["results"]
            if [result.get("value") for result in results] != [held[key] for key in batch]:
                raise BenchError(f"`:get` answered other values than were stored: {str(results)[:500]}")
            tiers = [result["tier"] for result in results]
            if tiers.count(self.tier) < _LEAST_SHARE * BATCH:
                raise BenchError(f"{self.tier} was to answer `:get`, but it was {tiers}")

    def _read(self, key: str, value: bytes) -> str:
        response, body = _get(self.server, key)
        if body != value:
            raise BenchError(
                f"GET {key} answered {response.status} with {len(body)} other bytes: {body[:300]!r}"
            )
        return answered_by(response.getheader("Cache-Status", ""))[0]


class Stage:
    """The servers of a run by name."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._services: dict[str, Service] = {}
        self._rivals: dict[str, Server] = {}
        self._memcached: Server | None = None

    def service(self, set_up: str) -> Service:
        """The running service of this set-up."""
        if set_up not in self._services:
            self._services[set_up] = self._start_service(SET_UPS[set_up])
        return self._services[set_up]

    def rival(self, name: str) -> Server:
        """The running rival: warm, with every key stored.

        It answers with the headers of the service's L1 hits.
        """
        if name not in self._rivals:
            headers = self._servers.folder / "headers.json"
            headers.write_text(json.dumps(self.service("l1").headers))
            rival = self._servers.rival(name, headers, self.memcached().port)
            self._rivals[name] = rival
            for key, value in values().items():
                if _get(rival, key)[1] != value:
                    raise BenchError(f"{name} answers other bytes for {key} than were stored")
        return self._rivals[name]

    def memcached(self) -> Server:
        """The rivals' own memcached, with every key stored as it is."""
        if self._memcached is None:
            self._memcached = self._servers.memcached()
            client = Client(("127.0.0.1", self._memcached.port))
            client.set_many(values())
            client.close()
        return self._memcached

    def _start_service(self, set_up: SetUp) -> Service:
        pool = [self._servers.memcached().port] if set_up.has_pool else []
        port = free_port()
        folder = self._servers.folder
        config, topology = folder / f"{set_up.name}-service.yaml", folder / f"{set_up.name}-topology.yaml"
        # JSON is YAML.
        otlp = "" if set_up.trace_ratio is None else self._servers.otlp_sink().url
        tls = _certificate(folder) if set_up.is_encrypted else {}
        config.write_text(json.dumps(_service_document(set_up, port, otlp, tls)))
        topology.write_text(
            json.dumps(
                {
                    **_topology_document(
                        pool,
                        self._servers.redis().port,
                        self._servers.redis().port,
                        limits=bool(set_up.limits),
                    ),
                    **(_callers() if set_up.has_callers else {}),
                }
            )
        )
        server = self._servers.service(config, topology, port, is_encrypted=set_up.is_encrypted)
        _store_all(server)
        response, _ = _get(server, next(iter(values())))
        service = Service(server, set_up.tier, response.getheaders())
        for _ in range(2):  # at the first reading, copies move to the nearer tiers
            _read_all(server)
        service.check_tier(every=10)
        return service


def _certificate(folder: Path) -> dict[str, str]:
    """The `tls` block of a port, with a certificate that is made for this run."""
    cert, key = folder / "tls.pem", folder / "tls.key"
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    return {"cert": str(cert), "key": str(key)}


def _service_document(set_up: SetUp, port: int, otlp: str, tls: Mapping[str, str]) -> dict[str, object]:
    hot_keys: dict[str, object] = {}
    report: dict[str, object] = {}
    if set_up.limits is not None:
        hot_keys, report = {"hot_key_share": 0.1 * set_up.limits}, {"report_keys": 4096 * set_up.limits}
    return {
        "region": "bench",
        "instance": set_up.name,
        "server": {"port": port, "tls": tls, **hot_keys},
        "l1": {"max_entries": set_up.l1_entries},
        "l2": {"seal_keys": bytes(range(32)).hex() if set_up.is_sealed else ""},
        "telemetry": {
            "otlp": otlp,
            "trace_ratio": set_up.trace_ratio or 0.0,
            "metrics_interval": "3s",
            **report,
        },
    }


def _topology_document(pool: Sequence[int], cell: int, queue: int, *, limits: bool) -> dict[str, object]:
    """One region and one cell. With `limits` the namespace has those that a read could meet.

    Lifetimes are longer than the run, and nothing is refreshed early: a read is a hit and nothing
    else.
    """
    servers = {f"m{number}": {"address": f"127.0.0.1:{port}"} for number, port in enumerate(pool)}
    namespace: dict[str, object] = {"owner": "bench", "ttl": "50m", "jitter": 0.0, "early_refresh": 0.0}
    if limits:
        namespace |= {
            "l1": {"guaranteed": "50%", "at_most": "90%"},
            "rates": {"reads": {"per_second": 10_000_000}, "bytes": {"per_second": "900MiB"}},
            "origin_budget": {"loads_per_second": 1_000},
        }
    return {
        "version": 1,
        "regions": {"bench": {"queue": f"redis://127.0.0.1:{queue}/0", "pool": servers}},
        "cells": {"c1": {"region": "bench", "url": f"redis://127.0.0.1:{cell}/0"}},
        "namespaces": {NAMESPACE: namespace},
    }


def _callers() -> dict[str, object]:
    digest = hashlib.sha256(BEARER.encode()).hexdigest()
    reader = {"scopes": [f"read:{NAMESPACE}"], "tokens": [{"sha256": digest}]}
    everything = [f"{action}:*" for action in ("read", "write", "observe", "explain", "invalidate")]
    return {"callers": {"named": {"reader": reader}, "anonymous": everything}}


def _store_all(server: Server) -> None:
    held = values()
    for batch in batches(list(held)):
        answer = _post(server, ":put", {"items": [{"key": key, "value": held[key]} for key in batch]})
        refused = [result for result in answer["results"] if result["outcome"] != "stored"]
        if refused:
            raise BenchError(f"`:put` did not store {len(refused)} of {len(batch)}: {refused[0]}")


def _read_all(server: Server) -> None:
    connection = server.connect()
    for key in values():
        connection.request("GET", path_of(key))
        connection.getresponse().read()
    connection.close()


def _get(server: Server, key: str) -> tuple[HTTPResponse, bytes]:
    return _exchange(server, "GET", path_of(key), None, {})


def _post(server: Server, verb: str, body: Mapping[str, object]) -> dict[str, list[dict[str, object]]]:
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    response, answer = _exchange(
        server, "POST", f"/v1/{NAMESPACE}{verb}", msgspec.msgpack.encode(body), headers
    )
    if response.status != 200:
        raise BenchError(f"POST {verb} answered {response.status}: {answer[:500]!r}")
    return msgspec.msgpack.decode(answer, type=dict)


def _exchange(
    server: Server, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[HTTPResponse, bytes]:
    connection = server.connect()
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()
