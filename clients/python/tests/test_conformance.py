"""The SDK, async and sync, against clients/conformance.

It sends the requests that the cases say, and returns what the cases say for their answers.
"""

import inspect
from collections import Counter
from contextlib import AsyncExitStack
from random import Random
from typing import Any
from urllib.parse import unquote

import cachesvc_client
import cachesvc_client.sync
import msgspec
import pytest
from cachesvc_client import CacheError, PartialError
from cachesvc_client.instances.endpoints import urls_of
from cachesvc_client.instances.profiles import LAPTOP
from cachesvc_client.instances.region import Region
from cachesvc_client.instances.retries import Retries
from cachesvc_client.instances.ring import Ring
from cachesvc_client.near.fences import moment_of
from cachesvc_client.near.near import Near, target_digest
from cachesvc_client.protocol.names import check_key, checked_tags
from cachesvc_client.protocol.wire import Got
from cachesvc_client.requests.namespace_requests import NamespaceRequests
from cachesvc_client.requests.own_writes import OwnWrites, key_digest, pairs_of, token_of
from cachesvc_client.testing import FakeClock, Request, Response
from cachesvc_client.testing.async_session import AsyncSession
from cachesvc_client.testing.sync_session import SyncSession
from cachesvc_client.values.durations import seconds_of
from cachesvc_client.values.lifetimes import Lifetimes
from cachesvc_client.values.lookups import etag_of

from clients.conformance.case_format import Call, Case, Step, cases, vectors
from clients.conformance.patterns import Bindings, mismatch, rendered
from clients.conformance.replay import body_mismatch, example, requested
from clients.python.tests.test_region import learned

CALLED = [(name, case) for name, case in cases() if any(step.call for step in case.steps)]
"""The cases in which a user of an SDK does something."""
FLAVOURS: dict[str, tuple[Any, Any]] = {
    "async": (cachesvc_client.Cache, AsyncSession),
    "sync": (cachesvc_client.sync.Cache, SyncSession),
}
PROFILE = msgspec.structs.replace(LAPTOP, retries=Retries(most=0))
OF_THE_CLIENT = ("batching", "caller")
OF_THE_NAMESPACE = ("namespace", "max_lag")


class ReplayingServer:
    """A double of `FakeService` behind a session: it expects one request and has the answer."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.bindings: Bindings = {}
        self.wrong = ""
        self._expected: Step | None = None

    def expect(self, step: Step) -> None:
        self._expected = step

    def is_met(self) -> bool:
        return self._expected is None

    def respond(self, request: Request, **_: Any) -> Response:
        if request.target == "/v1/topology":  # asked for besides
            return Response(404)
        step, self._expected = self._expected, None
        if step is None or step.request is None or step.answer is None:
            self.wrong = f"one request more than expected: {request.method} {request.target}"
            return Response(500)
        self.wrong = self.wrong or self._mismatch(step, request)
        answered = example(step.answer, self.bindings)
        return Response(answered.status, answered.headers, answered.body)

    def _mismatch(self, step: Step, request: Request) -> str:
        assert step.request is not None
        wanted = requested(step.request, self.bindings)
        if (request.method, unquote(request.target)) != (wanted.method, unquote(wanted.target)):
            return f"{request.method} {request.target}, expected {wanted.method} {wanted.target}"
        named = {name.lower(): value for name, value in wanted.headers.items()}
        return mismatch(named, dict(request.headers), self.bindings) or self._body_mismatch(step, request)

    def _body_mismatch(self, step: Step, request: Request) -> str:
        assert step.request is not None
        expected = step.request.msgpack if step.request.msgpack is not None else step.request.json
        if expected is None:
            return ""
        document = request.document
        more = {
            name for name in document if name not in expected and document[name]
        }  # defaults may be sent or left out
        return (
            f"members that are not expected: {more}"
            if more
            else body_mismatch(step.request, request.body, self.bindings)
        )


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("case", [case for _, case in CALLED], ids=[name for name, _ in CALLED])
async def test_the_client_sends_and_understands_what_the_case_says(case: Case, flavour: str) -> None:
    server = ReplayingServer()
    async with AsyncExitStack() as stack:
        clients: dict[str, Any] = {}
        for number, step in enumerate(case.steps):
            if step.call is None:
                if step.answer is not None:
                    example(step.answer, server.bindings)  # what it remembers
                continue
            server.expect(step)
            client = await _client(clients, stack, server, flavour, step.call)
            wrong = await _called(client, step.call, server.bindings)
            assert server.is_met(), f"step {number}: nothing was sent"
            assert (server.wrong or wrong) == "", f"step {number}"


async def _client(
    clients: dict[str, Any], stack: AsyncExitStack, server: Any, flavour: str, call: Call
) -> Any:
    """Returns the client of all calls with equal options, so that it reads its own writes."""
    options = {name: call.given[name] for name in OF_THE_CLIENT if name in call.given}
    if (made := clients.get(repr(options))) is not None:
        return made
    kind, session = FLAVOURS[flavour]
    cache: Any = kind.from_url("http://cache.test", profile=PROFILE, session=session(server), **options)
    entered = stack.enter_async_context(cache) if flavour == "async" else stack.enter_context(cache)
    clients[repr(options)] = cache = await entered if inspect.isawaitable(entered) else entered
    return cache


async def _called(cache: Any, call: Call, bindings: Bindings) -> str:
    """Returns a text that tells where the call's outcome differs from the case; else empty."""
    given = {
        name: rendered(value, bindings) for name, value in call.given.items() if name not in OF_THE_CLIENT
    }
    options = {name: given.pop(name) for name in OF_THE_NAMESPACE if name in given}
    owner = cache if call.do == "receipt" else cache.namespace(options.pop("namespace", "pages"), **options)
    try:
        result = getattr(owner, call.do)(**given)
        result = await result if inspect.isawaitable(result) else result
    except CacheError as error:
        return (
            mismatch(call.error, _said(error), bindings, "error")
            if call.error is not None
            else f"raised {error!r}"
        )
    if call.error is not None:
        return f"no error: {result!r}"
    if isinstance(call.result, dict) and isinstance(result, msgspec.Struct):
        result = msgspec.to_builtins(result)
    return mismatch(call.result, result, bindings, "result")


def _said(error: CacheError) -> dict[str, Any]:
    named = ("type", "status", "retryable", "retry_after", "request_id", "field")
    said = {name: getattr(error, name) for name in named}
    if isinstance(error, PartialError):
        said |= {"failed": list(error.failed), "found": error.found}
    return said


# vectors ------------------------------------------------------------------------------------------


def digest(target: str) -> str:
    return f"{target_digest(target):016x}"


def token(pairs: list[tuple[str, int]]) -> str:
    return token_of((target_digest(target), at) for target, at in pairs)


def token_pairs(text: str) -> list[list[Any]]:
    return [[f"{key:016x}", at] for key, at in pairs_of(text)]


def duration(text: str) -> int:
    return round(seconds_of(text, "duration") * 1_000_000)


def paced_moment(given: dict[str, Any]) -> int:
    return moment_of(given["at"], given["over"], target_digest(given["key"]))


def ring_order(given: dict[str, Any]) -> list[str]:
    return Ring(given["instances"]).preference(target_digest(given["key"]))


def spread(given: dict[str, Any]) -> list[str]:
    """Returns the instances in ring order, if each has as many reads as the others."""
    names = {f"http://10.0.0.{nth}:8080": name for nth, name in enumerate(given["instances"])}
    known = learned(Region(urls_of(next(iter(names))), Random(1)), {name: url for url, name in names.items()})
    key = target_digest(given["key"])
    for at, instances in given["told"]:
        known.heed_spread(key, instances, at)
    readers = Counter(str(known.reader(key, given["at"]).base) for _ in range(12 * len(names)))
    assert len(set(readers.values())) == 1
    asked = {names[url.rstrip("/")] for url in readers}
    return [name for name in Ring(given["instances"]).preference(key) if name in asked]


def home_in_zone(given: dict[str, Any]) -> str:
    """Returns the instance that a client in the zone asks for the key."""
    urls = {name: f"http://10.0.0.{nth}:8080" for nth, name in enumerate(given["zones"])}
    known = Region(urls_of("http://10.0.1.0:8080"), Random(1), shared=False, zone=given["zone"])
    known.use(urls, {name: zone for name, zone in given["zones"].items() if zone})
    for endpoint in known.probes(0.0):
        endpoint.probed(0.001)
    out = [urls[name] for name in given["out"]]
    for endpoint in known.candidates(0.0):
        for _ in range(2 if str(endpoint.base) in out else 0):
            endpoint.failed(0.0)
    known.probes(0.2)
    asked = str(known.home(target_digest(given["key"]), 0.2).base)
    return {url: str(name) for name, url in urls.items()}[asked]


def _requests() -> NamespaceRequests:
    writes = OwnWrites(lambda: 0.0)
    return NamespaceRequests("pages", writes, Near(lambda: 0.0, writes.heed))


def path(key: str) -> str:
    """Returns the segment decoded: any spelling of the same bytes will do.

    Nothing in the segment may end it.
    """
    segment = _requests().read_alone(key, "").path.removeprefix("/v1/pages/")
    is_one = not set(segment) & set("/?#") and segment not in (".", "..") and segment.isascii()
    spelled = {vector.given: str(vector.expect) for vector in vectors("path")}
    return spelled[key] if is_one and unquote(segment) == key else segment


def may_be_a_key(text: str) -> bool:
    try:
        check_key(text)
    except ValueError:
        return False
    return True


def may_be_a_tag(text: str) -> bool:
    try:
        checked_tags([text])
    except ValueError:
        return False
    return True


def cache_groups(tags: list[str]) -> str:
    got = Got("hit", b"", tags=tuple(tags))
    return str(_requests().touch("a", got, Lifetimes()).headers["Cache-Groups"])


def etag(given: dict[str, str]) -> str:
    return etag_of(given["value"].encode(), given["content_type"])


FUNCTIONS: dict[str, Any] = {
    "digest": digest,
    "token": token,
    "token_pairs": token_pairs,
    "duration": duration,
    "paced_moment": paced_moment,
    "ring_order": ring_order,
    "spread": spread,
    "home_in_zone": home_in_zone,
    "path": path,
    "key": may_be_a_key,
    "tag": may_be_a_tag,
    "cache_groups": cache_groups,
    "etag": etag,
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in FUNCTIONS for i in range(len(vectors(name)))]
)
def test_the_sdk_computes_what_the_vector_says(name: str, number: int) -> None:
    vector = vectors(name)[number]
    if vector.expect is None:
        with pytest.raises(ValueError, match=r".*"):
            FUNCTIONS[name](vector.given)
    else:
        assert FUNCTIONS[name](vector.given) == vector.expect, vector.note


def test_the_digest_of_a_key_is_that_of_its_target() -> None:
    assert f"{key_digest('pages', 'a'):016x}" == digest("pages/a")
