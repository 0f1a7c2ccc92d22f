"""Asking instances: whoever does not answer, or answers nonsense, is silent, with the reason."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from cachesvc.commands.top import scrape
from cachesvc.commands.top.deployment import Deployment, ask_for_deployment, deployment_of
from cachesvc.commands.top.scrape import Asker, Scrape, Silence, Unmet
from cachesvc.config.service import load_topology

METRICS = "".join(f'cachesvc_hot_key_share{{namespace="n{share}"}} 0.{share}\n' for share in range(1, 6))
READY = (
    '{"ready": false, "fence_feeds": {"eu": "catching up"}, "more": 1, "settings": '
    '[{"server": "cell c1", "need": "room", "effect": "cost", "why": "w", "remedy": "r"}]}'
)


class FakeInstance:
    """Answers from a dict of path → text; what is not there is 404."""

    def __init__(self) -> None:
        self.texts = {"/metrics": METRICS, "/readyz": READY}
        self.token = "sesame"
        self.saw: list[tuple[str, str]] = []
        """Target and debug token."""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.saw.append((request.path_qs, request.headers.get("Cachesvc-Debug", "")))
        if request.headers.get("Cachesvc-Debug", self.token) != self.token:
            return web.Response(status=403)
        if request.path == "/v1/hotkeys":
            namespace = request.query["namespace"]
            return web.json_response(
                {
                    "namespace": namespace,
                    "reads_sampled": 10,
                    "hot": [{"digest": "a", "share": 1, "reads_per_second": 2}],
                }
            )
        if request.path not in self.texts:
            return web.Response(status=404)
        return web.Response(text=self.texts[request.path], status=503 if request.path == "/readyz" else 200)


@asynccontextmanager
async def served(handle: Callable[[web.BaseRequest], object]) -> AsyncIterator[str]:
    server = web.Server(handle)  # type: ignore[arg-type] # a coroutine function
    runner = web.ServerRunner(server, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_an_instance_that_is_not_ready_is_scraped_all_the_same(http: aiohttp.ClientSession) -> None:
    fake = FakeInstance()
    async with served(fake.handle) as url:
        found = await Asker(http, "sesame").one(url)
    assert isinstance(found, Scrape)
    assert (found.ready.ready, found.ready.fence_feeds) == (False, {"eu": "catching up"})
    assert found.ready.settings == [Unmet("cell c1", "room", "cost", "w")]
    assert [hot.namespace for hot in found.hot] == ["n5", "n4", "n3"], "those with the hottest keys"
    assert {target: token for target, token in fake.saw if token} == {
        f"/v1/hotkeys?namespace={hot.namespace}": "sesame" for hot in found.hot
    }, "nobody else needs it"
    assert not found.refuses_token


async def test_whoever_refuses_the_debug_token_is_asked_without_it(http: aiohttp.ClientSession) -> None:
    fake = FakeInstance()
    fake.token = "another"
    async with served(fake.handle) as url:
        found = await Asker(http, "sesame").one(url)
    assert isinstance(found, Scrape)
    assert found.refuses_token
    assert len(found.hot) == scrape.HOT_NAMESPACES


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("/metrics", "no { metrics", "cannot be read"),
        ("/readyz", "yes", "cannot be read"),
        ("/metrics", None, "404 Not Found for /metrics"),
    ],
)
async def test_nonsense_is_no_answer(
    http: aiohttp.ClientSession, path: str, text: str | None, why: str
) -> None:
    fake = FakeInstance()
    fake.texts = {name: known for name, known in fake.texts.items() if name != path} | (
        {path: text} if text else {}
    )
    async with served(fake.handle) as url:
        found = await Asker(http).one(url)
    assert isinstance(found, Silence)
    assert why in found.why


async def test_a_port_where_nobody_listens_is_silence_and_so_is_one_that_hangs(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_: web.BaseRequest) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(scrape, "TIMEOUT_SECONDS", 0.05)
    async with served(FakeInstance().handle) as gone:
        pass
    async with served(hang) as silent:
        found = await Asker(http).all({"gone": gone, "silent": silent})
    assert found == {"gone": Silence("connection refused"), "silent": Silence("no answer within 0.05 s")}


SHOWN = """{"here": {"region": "eu", "instance": "eu-a"}, "version": 3, "regions": {
    "eu": {"queue": "redis://***@q", "instances": {"a": "http://1/", "b": "http://2"}},
    "us": {"queue": "redis://q2", "instances": {"a": "http://3"}}}}"""


async def test_the_first_instance_that_answers_names_the_others(http: aiohttp.ClientSession) -> None:
    fake = FakeInstance()
    fake.texts["/v1/topology"] = SHOWN
    async with served(FakeInstance().handle) as knows_nothing, served(fake.handle) as url:
        found = await ask_for_deployment(Asker(http), [knows_nothing, url])
    assert found == Deployment(
        {"eu/a": "http://1", "b": "http://2", "us/a": "http://3"}, {"eu": "redis://***@q", "us": "redis://q2"}
    )


async def test_a_topology_without_instances_is_those_that_were_named(http: aiohttp.ClientSession) -> None:
    fake = FakeInstance()
    fake.texts["/v1/topology"] = (
        '{"here": {"region": "eu", "instance": "eu-a"}, "regions": {"eu": {"queue": "redis://q"}}}'
    )
    async with served(FakeInstance().handle) as other, served(fake.handle) as url:
        assert (await ask_for_deployment(Asker(http), [url, other])).instances == {"eu-a": url, other: other}


def test_the_document_names_all_of_them() -> None:
    found = deployment_of(load_topology(Path("config/two-regions.yaml")))
    assert list(found.instances) == ["eu-a", "eu-b", "us-a", "us-b"]
    assert list(found.queues) == ["eu", "us"]
