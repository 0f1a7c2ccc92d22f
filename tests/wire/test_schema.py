"""The service serves what /openapi.json describes.

schemathesis sends what the document allows and what it forbids, and finds no 5xx.
The service runs on the fakes in a thread of its own. Set `CACHESVC_BASE_URL=http://127.0.0.1:8080`
to test a running instance with a namespace `pages` (another one: `CACHESVC_NAMESPACE`).
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cachesvc.changes.broadcast.broadcast import Broadcast
from cachesvc.config.service import Server, Service
from cachesvc.model.clock import SystemClock
from cachesvc.telemetry.metrics.metrics import Metrics
from cachesvc.web.handlers.openapi import document
from cachesvc.web.server import Web
from tests.doubles.paths import FakePaths
from tests.wire.conftest import SKEW_US, TOPOLOGY

NAMESPACE = os.environ.get("CACHESVC_NAMESPACE", "pages")


async def serve(started: "asyncio.Queue[int]", stop: asyncio.Event) -> None:
    clock = SystemClock()
    web = Web(
        Service(server=Server(max_inspections=1_000_000)),
        TOPOLOGY,
        FakePaths(clock),
        Broadcast(clock, SKEW_US, TOPOLOGY.regions),
        lambda: (True, {"eu": "ready"}),
        Metrics(),
    )
    await started.put(await web.start("127.0.0.1", 0))
    await stop.wait()
    await web.stop()


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    if given := os.environ.get("CACHESVC_BASE_URL"):
        yield given
        return
    loop = asyncio.new_event_loop()
    started: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(started, stop),))
    thread.start()
    port = asyncio.run_coroutine_threadsafe(started.get(), loop).result(timeout=10)
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=10)
    loop.close()


@schemathesis.serializer("application/msgpack")
def packed(_: schemathesis.SerializationContext, value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value, enc_hook=str)
    except OverflowError:  # an integer that msgpack has no form for: send what is no msgpack at all
        return b"\xc1"


# An answer that does not end cannot be read whole, as schemathesis does: test_streams.py has it, good and bad.
schema = schemathesis.openapi.from_dict(msgspec.json.decode(msgspec.json.encode(document()))).exclude(
    path="/v1/fences"
)


@schema.parametrize()
@hypothesis.settings(
    max_examples=int(os.environ.get("CACHESVC_EXAMPLES", "40")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_call_answers_as_described_and_never_with_a_failure(
    case: schemathesis.Case[Any], base_url: str
) -> None:
    if "namespace" in case.path_parameters and len(str(case.path_parameters["namespace"])) % 4:
        case.path_parameters["namespace"] = NAMESPACE  # most of them: nothing else would ever be found
    if "Cachesvc-Timeout" in case.headers and case.headers["Cachesvc-Timeout"][-1:].isalpha():
        case.headers["Cachesvc-Timeout"] = "10s"  # a caller who gives us 5 µs gets the 504 it asked for
    if isinstance(case.body, dict) and isinstance(case.body.get("namespace"), str):
        case.body["namespace"] = NAMESPACE
    case.call_and_validate(
        base_url=base_url,
        checks=[
            not_a_server_error,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
        ],
    )
