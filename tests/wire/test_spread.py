"""Readers of a hot key are told over how many instances to spread it, and of no other key."""

import json

from cachesvc.model.entry import Key
from cachesvc.model.requests import Answer, Outcome
from cachesvc.model.use import UNKEPT
from cachesvc.telemetry.popularity.spread import LAPSE_US, Spread
from tests.wire.conftest import Site


def heat(site: Site, key: str) -> None:
    """Has the key be a hot one at this instance, which then has three neighbours."""
    spread = site.paths.hot_keys.spread
    Spread.__init__(spread, 0.1, 4)
    spread.judge(site.clock.now_us())
    for _ in range(300):
        spread.note(Key.of("pages", key).digest)
    site.clock.advance(seconds=2)
    spread.judge(site.clock.now_us())


async def results(site: Site, *keys: str) -> list[dict[str, object]]:
    body = json.dumps({"keys": keys}).encode()
    answer = await site.ask("POST", "/v1/pages:get", {"Content-Type": "application/json"}, body)
    found: list[dict[str, object]] = json.loads(answer.body)["results"]
    return found


async def test_a_plain_hit_a_read_with_options_and_a_batch_say_it(site: Site) -> None:
    for key in ("hot", "cool"):
        site.hold(key)
    heat(site, "hot")
    for headers in ({}, {"Cache-Control": "max-age=3600"}):
        assert (await site.ask("GET", "/v1/pages/hot", headers)).headers["cachesvc-spread"] == "4"
        assert "cachesvc-spread" not in (await site.ask("GET", "/v1/pages/cool", headers)).headers
    assert [result.get("spread") for result in await results(site, "hot", "cool", "gone")] == [4, None, None]


async def test_it_says_so_no_longer_when_reads_are_few(site: Site) -> None:
    site.hold("hot", ttl=3600)
    heat(site, "hot")
    site.clock.advance(us=LAPSE_US)
    assert "cachesvc-spread" not in (await site.ask("GET", "/v1/pages/hot")).headers
    assert "spread" not in (await results(site, "hot"))[0]


async def test_a_miss_and_a_value_that_may_not_be_kept_are_not_worth_a_copy_elsewhere(site: Site) -> None:
    heat(site, "hot")
    assert "spread" not in (await results(site, "hot"))[0]
    assert "cachesvc-spread" not in (await site.ask("GET", "/v1/pages/hot")).headers
    entry = site.hold("hot")
    del site.reader.l1["hot"]
    site.reader.answers["hot"] = Answer(Outcome.LOADED, entry, "origin", use=UNKEPT)
    assert "spread" not in (await results(site, "hot"))[0]
    assert "cachesvc-spread" not in (await site.ask("GET", "/v1/pages/hot")).headers
