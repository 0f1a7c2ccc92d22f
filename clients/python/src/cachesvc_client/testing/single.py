"""GET, HEAD and PUT of `/v1/{ns}/{key}` of the fake service."""

from collections.abc import Callable

from cachesvc_client.requests.own_writes import token_of as packed
from cachesvc_client.testing.asking import Conditions, asked_of, check_lease, check_partition, draft_of
from cachesvc_client.testing.clock import FakeClock
from cachesvc_client.testing.contract import SECONDS, Contract
from cachesvc_client.testing.home import Entry, Fenced, Home, digest
from cachesvc_client.testing.http import Refused, Request, Response
from cachesvc_client.testing.reading import Found, Reader

_MISSED = "cachesvc-l3; fwd=uri-miss, cachesvc-l2; fwd=uri-miss, cachesvc-l1; fwd=uri-miss"


class SingleKeys:
    """The handler of requests for a single key; `told` is called with every new fence."""

    def __init__(
        self,
        home: Home,
        reader: Reader,
        clock: FakeClock,
        contract_of: Callable[[str], Contract],
        told: Callable[[list[Fenced]], None],
    ) -> None:
        self._home = home
        self._reader = reader
        self._clock = clock
        self._contract_of = contract_of
        self._told = told

    def read(self, request: Request, namespace: str, key: str, *, is_patient: bool) -> Response | None:
        """Answers GET and HEAD; None if the request has to wait for another caller's fill.

        `is_patient` is false when the time to wait is over. Raises `Refused`.
        """
        conditions = Conditions(request.headers)
        asked = asked_of(request.headers)
        found = self._reader.read(namespace, key, asked)
        if found.held and asked.wait and is_patient:
            return None
        response = self._answered(request, found, conditions, only_if_cached=asked.only_if_cached)
        if request.method == "HEAD":
            response.headers.setdefault("Content-Length", str(len(response.body)))
            response.body = b""
        return response

    def _answered(
        self, request: Request, found: Found, conditions: Conditions, *, only_if_cached: bool
    ) -> Response:
        entry = found.entry
        lease = {"Cachesvc-Lease": found.lease} if found.lease else {}
        if found.outcome == "failed":
            return Refused(502, "load-failed", "the origin failed", retryable=True).response(request)
        if entry is None:
            unkept = {"Cachesvc-Unkept": "1"} if found.unkept else {}
            headers = {"Cache-Control": "no-store", "Cache-Status": _MISSED, **lease, **unkept}
            if only_if_cached:
                return Refused(
                    504, "not-cached", "no copy that this request takes", "Cache-Control"
                ).response(request, headers)
            return Refused(404, "cache-miss", "there is no copy", retryable=True).response(request, headers)
        headers = {**self._freshness(entry, found), **lease}
        if entry.draft.absent:
            return Refused(404, "known-absent", "there is no such value").response(request, headers)
        headers["ETag"] = entry.etag
        if conditions.is_refused(entry):
            raise Refused(412, "precondition-failed", f"the value's ETag is {entry.etag}", "If-Match")
        if conditions.is_not_modified(entry):
            return Response(304, headers)
        value = entry.draft.value
        return Response(
            200,
            {**headers, "Content-Type": entry.draft.content_type, "Content-Length": str(len(value))},
            value,
        )

    def _freshness(self, entry: Entry, found: Found) -> dict[str, str]:
        now = self._clock.now_us()
        age, ttl = max(0, (now - entry.as_of) // SECONDS), (entry.fresh_until - now) // SECONDS
        ttl = min(ttl, -1) if found.outcome == "stale" else ttl
        lives = [f"max-age={max(0, age + ttl)}"]
        lives += (
            [f"stale-while-revalidate={entry.stale_for // SECONDS}"] if entry.stale_for >= SECONDS else []
        )
        lives += [f"stale-if-error={entry.error_for // SECONDS}"] if entry.error_for >= SECONDS else []
        is_kept = entry.draft.keep and not found.lease
        stored = f"{_MISSED}; stored" if entry.draft.keep else _MISSED
        status = stored if found.outcome == "loaded" else f"cachesvc-l1; hit; ttl={ttl}"
        headers = {
            "Age": str(age),
            "Cache-Control": ", ".join(lives) if is_kept else "no-store",
            "Vary": "Cachesvc-Token, Cachesvc-Max-Lag, Prefer",
            "Cache-Status": status,
        }
        if entry.draft.tags:
            headers["Cache-Groups"] = ", ".join(map(_quoted, entry.draft.tags))
        return headers

    def write(self, request: Request, namespace: str, key: str) -> Response:
        """Answers PUT; raises `Refused`."""
        contract = self._contract_of(namespace)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "content-encoding", "send the bytes as they are", "Content-Encoding")
        lease = request.headers.get("cachesvc-lease", "")
        check_lease(lease)
        try:
            return self._write(request, namespace, key, contract, lease)
        except Refused as refused:
            if lease and refused.kind != "fenced":
                self._home.release(namespace, key, lease, unkept=True)
            raise

    def _write(self, request: Request, namespace: str, key: str, contract: Contract, lease: str) -> Response:
        conditions = Conditions(request.headers)
        if conditions.none_match not in ((), ("*",)):
            raise Refused(400, "bad-header", "with PUT it can only be *", "If-None-Match")
        draft = draft_of(request.headers, request.body, contract.tags_max)
        if len(draft.value) > contract.max_value:
            raise Refused(413, "value-too-large", f"at most {contract.max_value} bytes", "body")
        check_partition(key, draft.tags)
        if lease:
            if not self._home.fill(namespace, key, draft, lease):
                raise Refused(409, "fenced", "the lease was voided or has expired", "Cachesvc-Lease")
            return Response(204, {"ETag": self._etag(namespace, key)})
        held = self._home.entry(namespace, key, {})
        if not conditions.allow_put(None if held is None or held.draft.absent else held):
            raise Refused(412, "precondition-failed", "what is stored is not what the condition asks for")
        fenced = self._home.put(namespace, key, draft)
        self._told([fenced])
        token = packed([(digest(fenced.target), fenced.at)])
        return Response(204, {"ETag": self._etag(namespace, key), "Cachesvc-Token": token})

    def release(self, request: Request, namespace: str, key: str) -> Response:
        """Answers POST, which gives a lease back; raises `Refused`."""
        lease, reason = (request.headers.get(name, "") for name in ("cachesvc-lease", "cachesvc-release"))
        if not lease:
            raise Refused(400, "bad-lease", "a POST to a key gives a lease back", "Cachesvc-Lease")
        check_lease(lease)
        if reason not in ("failed", "unkept"):
            raise Refused(400, "bad-header", "say failed or unkept", "Cachesvc-Release")
        self._home.release(namespace, key, lease, unkept=reason == "unkept")
        return Response(204, {})

    def _etag(self, namespace: str, key: str) -> str:
        entry = self._home.entry(namespace, key, {})
        return entry.etag if entry is not None else '""'


def _quoted(tag: str) -> str:
    return '"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"'
