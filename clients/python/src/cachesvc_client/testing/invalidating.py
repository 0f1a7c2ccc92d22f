"""DELETE, `/v1/invalidations` and receipts of the fake service.

The fake service has one region, one instance and one home cell.
"""

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from cachesvc_client.protocol.wire import JSON, MSGPACK
from cachesvc_client.requests.own_writes import token_of as packed
from cachesvc_client.testing.asking import checked_tags, duration_of, key_of
from cachesvc_client.testing.batch import document_of
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import CELL, EPOCH, INSTANCE, REGION, SECONDS, Contract
from cachesvc_client.testing.home import Fenced, Home, digest
from cachesvc_client.testing.http import Refused, Request, Response, json_response

LONGEST_OVER = 3600 * SECONDS
"""µs: the longest window of a paced invalidation."""
MAX_TOKEN_HEADER = 2048
"""Letters of a token that is answered in a header; a longer one stands in the body alone."""
_EVENT = "application/cloudevents+json"


class _Change(Struct, forbid_unknown_fields=True):
    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    confirm: str = ""
    soft: bool = False
    over: str = ""
    wait: Literal["none", "region", "global"] = "none"
    dry_run: bool = False


class _Event(Struct):
    specversion: Literal["1.0"]
    type: Literal["dev.cachesvc.change.v1"]
    id: str
    source: str
    data: _Change


class Invalidations:
    """The handler of invalidations and of questions for their receipts.

    `told` is called with the fences of every invalidation.
    """

    def __init__(
        self,
        home: Home,
        clock: FakeClock,
        contract_of: Callable[[str], Contract],
        told: Callable[[list[Fenced]], None],
    ) -> None:
        self._home = home
        self._clock = clock
        self._contract_of = contract_of
        self._told = told
        self._receipts: dict[str, str] = {}
        self.missing: list[str] = []
        """Instances, such as `us/us-b`, that do not merge in time what a call waits for."""

    def post(self, request: Request) -> Response:
        """Answers `POST /v1/invalidations`; raises `Refused`."""
        if request.media_type == _EVENT:
            change, at = document_of(request, _Event, _EVENT).data, "$.data"
        else:
            change, at = document_of(request, _Change, JSON, MSGPACK), "$"
        _check_caller(request)
        over = self._check(change, at)
        if change.dry_run:
            touched = self._home.count(change.namespace, change.keys, change.tags, whole=change.all)
            return json_response({"l1_entries": touched, "recent_reads": 0.0, "sampled": 0, "cells": [CELL]})
        fenced = self._home.invalidate(
            change.namespace,
            keys=change.keys,
            tags=change.tags,
            whole=change.all,
            soft=change.soft,
            over=over,
        )
        return self._receipt(fenced, change.wait)

    def delete(self, request: Request, namespace: str, key: str) -> Response:
        """Answers `DELETE /v1/{ns}/{key}`; raises `Refused`."""
        for field in ("If-Match", "If-None-Match", "Cachesvc-Lease"):
            if field.lower() in request.headers:
                raise Refused(400, "contradiction", "DELETE invalidates whatever is there", field)
        _check_caller(request)
        return self._receipt(self._home.invalidate(namespace, keys=[key]), "none")

    def _check(self, change: _Change, at: str) -> int:
        """Checks the change and returns its window in µs, 0 if it has none."""
        try:
            self._contract_of(change.namespace)
        except Refused as refused:
            refused.field = f"{at}.namespace"
            raise
        if not (change.keys or change.tags or change.all):
            raise Refused(400, "no-target", "name keys or tags, or say all: true", at)
        for nth, key in enumerate(change.keys):
            key_of(key, f"{at}.keys[{nth}]")
        checked_tags(change.tags, f"{at}.tags")
        over = duration_of(change.over, f"{at}.over", "invalid-body") if change.over else 0
        if change.over and not 0 < over <= LONGEST_OVER:
            raise Refused(400, "invalid-body", "a purge is paced over at most an hour", f"{at}.over")
        if change.dry_run and change.wait != "none":
            raise Refused(400, "contradiction", "a dry run changes nothing", f"{at}.wait")
        if change.all and not change.dry_run and change.confirm != change.namespace:
            raise Refused(400, "confirm-needed", "this purges the whole namespace", f"{at}.confirm")
        return over

    def _receipt(self, fenced: list[Fenced], wait: str) -> Response:
        self._told(fenced)
        stamp = self._clock.stamp()
        id_, position = f"{REGION}:{stamp}-0", f"{stamp}-1@{EPOCH}"
        self._receipts[id_] = position
        token = packed([(digest(one.target), one.at) for one in fenced])
        missing = self.missing if wait != "none" else []
        document: dict[str, Any] = {"id": id_, "token": token, "applied": True, "position": position}
        document |= {"wait": wait, "reached": not missing, "missing": missing}
        headers = {"Cachesvc-Token": token} if len(token) <= MAX_TOKEN_HEADER else {}
        return json_response(document, 202 if missing else 200, headers)

    def state(self, id_: str) -> Response:
        """Answers `GET /v1/invalidations/{id}`; raises `Refused` if no change has the id."""
        position = self._receipts.get(id_)
        if position is None:
            raise Refused(404, "no-such-receipt", "no change has this id, or it is too long ago", "id")
        merged = [] if self.missing else [f"{REGION}/{INSTANCE}"]
        named = {"cells": [CELL], "missed": [], "merged": merged, "missing": self.missing, "reason": ""}
        return json_response(
            {"id": id_, "state": "done", "position": position, **named}, headers={"Cache-Control": "no-store"}
        )


def _check_caller(request: Request) -> None:
    if len(request.headers.get("cachesvc-caller", "")) > 128:
        raise Refused(
            400, "bad-caller", "a caller's name has 1 to 128 printable characters", "Cachesvc-Caller"
        )
