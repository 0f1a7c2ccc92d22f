"""The test double passes the cases that the service passes."""

import json
from typing import Any

import pytest
from cachesvc_client.testing import Contract, FakeService, Loaded, Request
from cachesvc_client.testing.feed import Subscription
from cachesvc_client.testing.http import Refused
from cachesvc_client.values.durations import seconds_of

from clients.conformance.case_format import Case, cases, namespaces
from clients.conformance.replay import Answered, Requested, replay

CASES = [(name, case) for name, case in cases() if "fault" not in case.needs]


def origin(key: str) -> Loaded | None:
    """The origin of `articles`, as clients/conformance/README.md describes it."""
    if key.startswith("broken-"):
        raise OSError("out of order")
    if key.startswith("unkept-"):
        return Loaded(f"value of {key}".encode(), keep=False)
    return (
        None if key.startswith("absent-") else Loaded(f"value of {key}".encode(), "text/plain", ("article",))
    )


def contract_of(document: dict[str, Any]) -> Contract:
    durations = ("ttl", "stale_while_revalidate", "stale_if_error")
    named: dict[str, Any] = {name: seconds_of(document[name], name) for name in durations if name in document}
    if "max_value" in document:
        named["max_value"] = int(document["max_value"].removesuffix("B"))
    if "tags_max" in document:
        named["tags_max"] = document["tags_max"]
    return Contract(**named, origin=origin if "origin" in document else None)


class FakeFeed:
    def __init__(self, service: FakeService, subscription: Subscription) -> None:
        self._service = service
        self._subscription = subscription
        self._events: list[str] = []

    async def next(self) -> tuple[str, str, Any]:
        while not self._events:
            self._service.beat()
            self._events = self._subscription.take().decode().split("\n\n")[:-1]
        fields = dict(line.split(": ", 1) for line in self._events.pop(0).split("\n"))
        return fields["event"], fields["id"], json.loads(fields["data"])


class Replayed:
    """The test double without a client: as any HTTP client would meet it."""

    def __init__(self, service: FakeService) -> None:
        self._service = service

    async def exchange(self, requested: Requested) -> Answered:
        try:
            async with self._service.session().request(
                requested.method,
                f"http://cache.test{requested.target}",
                data=requested.body,
                headers=requested.headers,
            ) as response:
                return Answered(
                    response.status,
                    {n.lower(): v for n, v in response.headers.items()},
                    await response.read(),
                )
        except Refused as refused:
            return Answered(refused.status, {})

    async def subscribe(self, requested: Requested) -> tuple[Answered, FakeFeed]:
        headers = {name.lower(): value for name, value in requested.headers.items()}
        subscription = self._service.subscribe(Request(requested.method, requested.target, headers))
        said = {"content-type": "text/event-stream", "cache-control": "no-store"}
        return Answered(200, said), FakeFeed(self._service, subscription)

    async def advance(self, seconds: float) -> None:
        self._service.clock.advance(seconds)


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
async def test_the_double_answers_as_the_case_says(case: Case) -> None:
    service = FakeService({name: contract_of(document) for name, document in namespaces().items()})
    await replay(case, Replayed(service))
