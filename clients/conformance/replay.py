"""Replays HTTP cases against the service or a double of it."""

import asyncio
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from clients.conformance.case_format import Answer, Case, Event, Request, Step
from clients.conformance.patterns import Bindings, mismatch, rendered

MSGPACK = "application/msgpack"
JSON = "application/json"


class Requested(Struct):
    """A request as it is sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


class Answered(Struct):
    """An answer that has come; its header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Feed(Protocol):
    """A stream of events."""

    async def next(self) -> tuple[str, str, Any]:
        """Returns the next event: its name, its id, its data decoded."""
        ...


class Replayed(Protocol):
    """The service or a double of it, as a case sees it."""

    async def exchange(self, request: Requested, /) -> Answered:
        """Sends the request and returns its answer."""
        ...

    async def subscribe(self, request: Requested, /) -> tuple[Answered, Feed]:
        """Sends a request whose answer is a stream; returns the answer's head and the stream."""
        ...

    async def advance(self, seconds: float, /) -> None:
        """Lets so much time pass, and lets happen what happens in it."""
        ...


class Failed(AssertionError):  # noqa: N818  what a test fails with
    """A step went differently than its case says."""


async def replay(case: Case, service: Replayed) -> None:
    """Replays the case; raises `Failed` at the first step that does not go as it says."""
    await _Replay(service).run(case)


class _Replay:
    def __init__(self, service: Replayed) -> None:
        self._service = service
        self._bindings: Bindings = {}
        self._later: dict[str, asyncio.Task[Answered]] = {}
        self._streams: dict[str, Feed] = {}

    async def run(self, case: Case) -> None:
        try:
            for number, step in enumerate(case.steps):
                if wrong := await self._run_step(step):
                    raise Failed(f"step {number}: {wrong}")
        finally:
            for waiting in self._later.values():
                waiting.cancel()

    async def _run_step(self, step: Step) -> str:
        if step.advance:
            await self._service.advance(step.advance)
            return ""
        if step.of and step.answer is not None:
            return answer_mismatch(step.answer, await self._later.pop(step.of), self._bindings)
        if step.events:
            return await self._events_mismatch(self._streams[step.stream], step.events)
        if step.request is None:
            return "a step has a request, an `advance`, an `of` or `events`"
        request = requested(step.request, self._bindings)
        if step.later:
            self._later[step.later] = asyncio.create_task(self._service.exchange(request))
            await asyncio.sleep(0)
            return ""
        if step.answer is None:
            return "a request has an answer, or comes `later`"
        if step.stream:
            answered, self._streams[step.stream] = await self._service.subscribe(request)
        else:
            answered = await self._service.exchange(request)
        return answer_mismatch(step.answer, answered, self._bindings)

    async def _events_mismatch(self, feed: Feed, events: list[Event]) -> str:
        """Compares the next events, in this order; unexpected heartbeats are passed over."""
        for number, expected in enumerate(events):
            kind, id_, data = await _next_of(feed, expected.event)
            found = {"event": kind, "id": id_, "data": data}
            wanted = {"event": expected.event, "data": expected.data}
            if expected.id is not None:
                wanted["id"] = expected.id
            if wrong := mismatch(wanted, found, self._bindings, f"events[{number}]"):
                return wrong
        return ""


async def _next_of(feed: Feed, expected: str) -> tuple[str, str, Any]:
    """Returns the next event; for about ten seconds unexpected heartbeats are passed over."""
    for _ in range(20):
        event = await feed.next()
        if event[0] == expected or event[0] != "heartbeat":
            return event
    return event


def requested(request: Request, bindings: Bindings) -> Requested:
    """Returns the request, ready to be sent."""
    headers = {name: rendered(value, bindings) for name, value in request.headers.items()}
    body, content_type = _body_of(request, bindings)
    if content_type:
        headers.setdefault("Content-Type", content_type)
    return Requested(request.method, rendered(request.target, bindings), headers, body)


def example(answer: Answer, bindings: Bindings) -> Answered:
    """Returns an example of the answer that the case asks for."""
    headers = {
        name.lower(): rendered(value, bindings)
        for name, value in answer.headers.items()
        if value != {"$left_out": True}
    }
    body, content_type = _body_of(answer, bindings)
    if content_type:
        headers.setdefault("content-type", content_type)
    return Answered(answer.status, headers, body)


def answer_mismatch(answer: Answer, found: Answered, bindings: Bindings) -> str:
    """Returns a text that tells where the answer differs; empty if it is as expected."""
    if found.status != answer.status:
        return f"status {found.status}, expected {answer.status}: {found.body[:300]!r}"
    wanted = {name.lower(): value for name, value in answer.headers.items()}
    if wrong := mismatch(wanted, found.headers, bindings, "headers"):
        return wrong
    return body_mismatch(answer, found.body, bindings)


def body_mismatch(wanted: Answer | Request, body: bytes, bindings: Bindings) -> str:
    """Returns a text that tells where the body differs; empty if it is as expected."""
    if wanted.msgpack is not None:
        return mismatch(wanted.msgpack, msgspec.msgpack.decode(body), bindings)
    if wanted.json is not None:
        return mismatch(wanted.json, msgspec.json.decode(body), bindings)
    if wanted.body is not None:
        return mismatch(wanted.body, body.decode() if isinstance(wanted.body, str) else body, bindings)
    return ""


def _body_of(said: Request | Answer, bindings: Bindings) -> tuple[bytes, str]:
    if said.msgpack is not None:
        return msgspec.msgpack.encode(rendered(said.msgpack, bindings)), MSGPACK
    if said.json is not None:
        is_problem = isinstance(said, Answer) and said.status >= 400
        return msgspec.json.encode(
            rendered(said.json, bindings)
        ), "application/problem+json" if is_problem else JSON
    if said.body is None:
        return b"", ""
    body = rendered(said.body, bindings)
    return (body.encode() if isinstance(body, str) else body), ""
