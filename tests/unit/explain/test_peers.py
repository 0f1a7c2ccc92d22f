"""Other instances say over HTTP what they see of a key, or answer late, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from cachesvc.config.service import Breakers
from cachesvc.explain import peers
from cachesvc.explain.answer import Copy, Question, Seen
from cachesvc.explain.peers import HttpPeers
from cachesvc.explain.waits import Waits
from cachesvc.model.entry import Key
from cachesvc.tiers.breaker import BreakerPool, BreakerState
from tests.doubles.certificates import Authority

SEEN = Seen("us", "us-a", clock=7, tiers={"l1": Copy(held=True, etag='"e"', as_of=5)})
KEY = Key.of("pages", "{ws-7}:a/b")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives an instance on a busy machine the time that it needs."""
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 30.0)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    runners: list[web.ServerRunner] = []

    async def start(handler: Handler) -> str:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.01)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def ask(url: str, question: Question | None = None) -> Seen:
    asking = HttpPeers({("us", "us-a"): url})
    await asking.start()
    try:
        (seen,) = await asking.ask(KEY, question or Question())
    finally:
        await asking.stop()
    return seen


async def test_an_instance_tells_its_part_of_the_read_that_is_explained(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    asked: list[tuple[str, str | None]] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append((request.raw_path, request.headers.get("Cachesvc-Token")))
        return web.Response(body=msgspec.json.encode(SEEN))

    assert await ask(await serve(answer), Question(headers={"Cachesvc-Token": "t"})) == SEEN
    assert asked == [("/v1/pages/%7Bws-7%7D%3Aa%2Fb:explain?scope=instance", "t")]


async def test_a_field_that_this_release_does_not_know_is_passed_over(
    serve: Callable[[Handler], Awaitable[str]],
) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"region": "us", "instance": "us-a", "new": 1})

    assert await ask(await serve(answer)) == Seen("us", "us-a")


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (503, b"", "answered 503"),
        (200, b"{}", "its answer is not understood: Object missing required field `region`"),
    ],
)
async def test_one_that_cannot_tell_is_there_with_its_reason(
    serve: Callable[[Handler], Awaitable[str]], status: int, body: bytes, why: str
) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    assert await ask(await serve(answer)) == Seen("us", "us-a", unavailable=why)


@pytest.mark.parametrize(
    ("held", "shown", "why"),
    [
        (None, None, "answered 401: its callers need one with explain:*"),
        ("secret\n", "Bearer secret", ""),
        ("two words", None, "is not asked: server.peer_token_file: "),
        ("", None, "is not asked: server.peer_token_file: "),
    ],
)
async def test_the_token_of_a_file_is_shown_to_the_others(
    serve: Callable[[Handler], Awaitable[str]], held: str | None, shown: str | None, why: str, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.headers.get("Authorization"))
        return web.Response(status=200 if asked[-1] else 401, body=msgspec.json.encode(SEEN))

    file = tmp_path / "token"
    if held is not None:
        await asyncio.to_thread(file.write_text, held)
    asking = HttpPeers({("us", "us-a"): await serve(answer)}, str(file) if held is not None else "")
    await asking.start()
    try:
        (seen,) = await asking.ask(KEY, Question())
    finally:
        await asking.stop()
    assert seen.unavailable.startswith(why)
    assert "secret" not in seen.unavailable
    assert "two words" not in seen.unavailable
    assert asked == ([] if why.startswith("is not") else [shown])


async def test_one_that_is_silent_is_not_waited_for(
    serve: Callable[[Handler], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 0.05)
    gone = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await gone.wait()
        return web.Response()

    assert await ask(await serve(hang)) == Seen("us", "us-a", unavailable="no answer within 50 ms")
    gone.set()


async def test_one_that_hangs_is_left_alone_and_asked_again_by_a_probe(
    serve: Callable[[Handler], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 0.01)
    goes_on, now = asyncio.Event(), 0.0

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await goes_on.wait()
        return web.Response(body=msgspec.json.encode(SEEN))

    breakers = BreakerPool(Breakers(failures=3), now=lambda: now)
    asking = HttpPeers({("us", "us-a"): await serve(hang)}, breakers=breakers)
    await asking.start()

    async def said() -> str:
        (seen,) = await asking.ask(KEY, Question())
        return seen.unavailable

    try:
        assert [await said() for _ in range(5)] == [
            "no answer within 10 ms",
            "no answer within 20 ms",
            "no answer within 40 ms",
            "not tried: its breaker is open",
            "not tried: its breaker is open",
        ]
        breaker = breakers["us/us-a"]
        assert (breaker.times_opened, breaker.refused) == (1, 2)
        now += 1
        assert await said() == "no answer within 80 ms"
        assert breaker.times_opened == 2
        goes_on.set()
        monkeypatch.setattr(asking, "_waits", Waits(30, 30))  # a busy machine
        now += 1
        assert [await said() for _ in range(3)] == ["", "", ""]
        assert breaker.state is BreakerState.CLOSED
    finally:
        await asking.stop()


async def test_one_that_is_not_there_is_left_alone_at_once() -> None:
    breakers = BreakerPool(Breakers(), now=lambda: 0.0)
    asking = HttpPeers({("us", "us-a"): "http://127.0.0.1:9"}, breakers=breakers)
    await asking.start()
    (first,) = await asking.ask(KEY, Question())
    (second,) = await asking.ask(KEY, Question())
    await asking.stop()
    assert first.unavailable.startswith("ClientConnectorError: ")
    assert second.unavailable == "not tried: its breaker is open"


async def test_before_the_start_nobody_is_asked() -> None:
    assert await HttpPeers({("us", "us-a"): "http://127.0.0.1:9"}).ask(KEY, Question()) == ()


@pytest.mark.parametrize("is_believed", [True, False])
async def test_an_instance_with_https_is_asked_if_its_authority_is_known(
    tmp_path: Path, is_believed: bool
) -> None:
    authority = Authority(tmp_path)
    runner = web.ServerRunner(web.Server(_answer_seen), shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.issue().server_context()).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    context = (authority if is_believed else Authority(tmp_path, "other")).client_context()
    asking = HttpPeers({("us", "us-a"): url}, tls=context)
    await asking.start()
    (seen,) = await asking.ask(KEY, Question())
    await asking.stop()
    await runner.cleanup()
    if is_believed:
        assert seen == SEEN
    else:
        assert "an authority that tls.ca does not have" in seen.unavailable


async def _answer_seen(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=msgspec.json.encode(SEEN))
