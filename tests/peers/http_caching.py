"""Runs cases of HTTP caching against a real service with an origin.

    git clone https://github.com/http-tests/cache-tests && cd cache-tests && npm install
    node test-engine/export.mjs > /tmp/cache-tests.json
    python -m tests.peers.http_caching /tmp/cache-tests.json

A case has the format of that suite, whose README describes it: requests in order, each with what
the origin answers and what is expected. `http_cases.py` has our own. The cache is a namespace whose
stale windows, jitter and early refresh are 0. docs/http-caching.md has the result, and why some cases fail by design.

The service is no proxy, so the runner reads the cases as follows:

- a request's path is the key; its headers go to the service, which sends none of them on;
- `cached` means that the origin was not asked, `not_cached` that it was, `etag_validated` that it
  was asked with `If-None-Match`; the origin then answers 304 if the tag is the one it gave last;
- header lines of the origin are not expected in the answer: only `expected_response_headers` are;
- cases with other methods than GET and HEAD are not run.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import aiohttp
from aiohttp import web

from loadtests.fleet import Fleet

Verdict = Literal["pass", "fail", "set-up", "not run"]
Case = Mapping[str, Any]

PAUSE_SECONDS = 3.0
"""The suite's pause between two requests of a case."""
AT_ONCE = 24
DATES = ("date", "expires", "last-modified")
TOPOLOGY = """
version: 1
regions:
  here:
    queue: redis://127.0.0.1:1/0
    pool: {m1: {address: "127.0.0.1:2"}}
    instances: {a: http://127.0.0.1:3}
cells:
  c1: {region: here, url: redis://127.0.0.1:4/0}
namespaces: {}
"""


@dataclass
class Exchange:
    """One case as it runs: what the origin is to answer next, and what it was asked."""

    requests: Sequence[Mapping[str, Any]]
    number: int = 0
    asked: list[Mapping[str, str]] = field(default_factory=list)
    etag: str = ""


class Origin:
    """An origin that answers as the running cases say. A key begins with the name of its case."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.url.path.removeprefix("/").partition("~")[0]
        exchange = self.exchanges[name]
        wanted = exchange.requests[exchange.number]
        exchange.asked.append({name.lower(): value for name, value in request.headers.items()})
        if wanted.get("disconnect") and request.transport is not None:
            request.transport.abort()
        status, _ = wanted.get("response_status", (200, ""))
        if wanted.get("expected_type", "").endswith("validated") and exchange.etag:
            status = 304 if request.headers.get("If-None-Match") == exchange.etag else status
        body = wanted.get("response_body") or name
        answer = web.Response(status=status, body=b"" if status in (204, 304) else str(body).encode())
        for header, value, *_ in wanted.get("response_headers", ()):
            answer.headers.add(header, dated(header, value))
        answer.headers.setdefault("Content-Type", "text/plain")
        exchange.etag = answer.headers.get("ETag", exchange.etag)
        return answer


def dated(header: str, value: object) -> str:
    """A number as a date header's value is a date, so many seconds from now."""
    if header.lower() in DATES and isinstance(value, int):
        return formatdate(time.time() + value, usegmt=True)
    return str(value)


@asynccontextmanager
async def serving(origin: Origin) -> AsyncIterator[int]:
    """The origin on a port of its own."""
    runner = web.ServerRunner(web.Server(origin.answer), handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextmanager
def service(origin_port: int) -> Iterator[str]:
    """A service with real servers, whose namespace `http` has that origin; its URL for a key."""
    namespace = {
        "owner": "tests",
        "ttl": "1ms",
        "stale_while_revalidate": 0,
        "stale_if_error": 0,
        "negative_ttl": "1ms",
        "jitter": 0,
        "early_refresh": 0,
        "origin": {"url": f"http://127.0.0.1:{origin_port}/{{key}}"},
    }
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as directory:
        document = Path(directory) / "topology.yaml"
        document.write_text(TOPOLOGY)
        with Fleet(document, Path(directory) / "run", namespaces={"http": namespace}) as fleet:
            yield f"{fleet.url('a')}/v1/http"


async def run_case(
    case: Case, origin: Origin, url: str, http: aiohttp.ClientSession, pause_seconds: float
) -> tuple[Verdict, str]:
    """Runs one case; the text says what was otherwise than expected."""
    requests = case["requests"]
    if any(one.get("request_method", "GET") not in ("GET", "HEAD") for one in requests):
        return "not run", "another method than GET and HEAD"
    name = uuid.uuid4().hex
    exchange = origin.exchanges[name] = Exchange(requests)
    for number, request in enumerate(requests):
        exchange.number, before = number, len(exchange.asked)
        target = name + (f"~{request['filename']}" if "filename" in request else "")
        target = target if "query_arg" not in request else f"{target}~{request['query_arg']}"
        headers = [(header, dated(header, value)) for header, value, *_ in request.get("request_headers", ())]
        method = request.get("request_method", "GET")
        async with http.request(method, f"{url}/{target}", headers=headers, allow_redirects=False) as answer:
            await answer.read()
            asked = exchange.asked[before:]
            if found := fault(request, answer, asked):
                member, why = found
                is_set_up = request.get("setup") or member in request.get("setup_tests", ())
                return "set-up" if is_set_up or member == "" else "fail", f"request {number + 1}: {why}"
        if request.get("pause_after"):
            await asyncio.sleep(pause_seconds)
    return "pass", ""


def fault(
    request: Mapping[str, Any], answer: aiohttp.ClientResponse, asked: Sequence[Mapping[str, str]]
) -> tuple[str, str] | None:
    """The expectation that the answer does not meet, and how; "" if it is not tested."""
    kind = request.get("expected_type", "")
    if kind == "cached" and asked:
        return "expected_type", "the origin was asked"
    if kind == "not_cached" and not asked:
        return "expected_type", "the answer comes from the cache"
    if kind == "etag_validated" and not (asked and "if-none-match" in asked[0]):
        return "expected_type", "was not validated by its ETag"
    if kind == "lm_validated" and not (asked and "if-modified-since" in asked[0]):
        return "expected_type", "was not validated by its date"
    if "expected_status" in request:
        if request["expected_status"] not in (None, answer.status):
            return "expected_status", f"status {answer.status}"
    elif answer.status != request.get("response_status", (200, ""))[0]:
        return "", f"status {answer.status}"
    for expected in request.get("expected_response_headers", ()):
        header, *value = [expected] if isinstance(expected, str) else expected
        said = answer.headers.get(header)
        if said is None or (len(value) == 1 and said != dated(header, value[0])):
            return "expected_response_headers", f"{header} is {said!r}"
        if value[:1] == [">"] and not int(said) > int(value[1]):
            return "expected_response_headers", f"{header} is {said!r}"
    for header in request.get("expected_response_headers_missing", ()):
        if isinstance(header, str) and header in answer.headers:
            return "expected_response_headers_missing", f"{header} is there"
    for expected in request.get("expected_request_headers", ()):
        header, *value = [expected] if isinstance(expected, str) else expected
        if not asked or header.lower() not in asked[0] or value not in ([], [asked[0][header.lower()]]):
            return "expected_request_headers", f"{header} was not sent to the origin"
    return None


async def run_all(
    cases: Sequence[Case], *, pause_seconds: float, settle_seconds: float
) -> dict[str, tuple[Verdict, str]]:
    """Runs cases, many at a time, against one service; the verdicts by id.

    The service is left alone for `settle_seconds` first: it keeps no answer that is older (`Age`) than
    the fences that it knows, and a new one knows of none before its start.
    """
    origin, limit = Origin(), asyncio.Semaphore(AT_ONCE)
    async with serving(origin) as port:
        starting = service(port)
        url = await asyncio.to_thread(starting.__enter__)
        await asyncio.sleep(settle_seconds)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

                async def limited(case: Case) -> tuple[Verdict, str]:
                    async with limit:
                        return await run_case(case, origin, url, http, pause_seconds)

                verdicts = await asyncio.gather(*map(limited, cases))
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
    return {case["id"]: verdict for case, verdict in zip(cases, verdicts, strict=True)}


def is_required(case: Case) -> bool:
    return case.get("kind", "required") == "required" and not case.get("browser_only")


def main(path: Path) -> None:
    """Prints a row per group of required cases, then every case that failed, by group."""
    groups = json.loads(path.read_text())
    cases = [case for group in groups for case in group["tests"] if is_required(case)]
    verdicts = asyncio.run(run_all(cases, pause_seconds=PAUSE_SECONDS, settle_seconds=40))
    kinds: tuple[Verdict, ...] = ("pass", "fail", "set-up", "not run")
    print(f"{'group':28}", *(f"{kind:>8}" for kind in kinds))
    whole: Counter[Verdict] = Counter()
    for group in groups:
        counts = Counter(verdicts[case["id"]][0] for case in group["tests"] if is_required(case))
        whole += counts
        print(f"{group['id']:28}", *(f"{counts[kind]:8}" for kind in kinds))
    print(f"{'all':28}", *(f"{whole[kind]:8}" for kind in kinds))
    for id_, (verdict, why) in verdicts.items():
        if verdict != "pass":
            print(f"{verdict:8} {id_}: {why}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
