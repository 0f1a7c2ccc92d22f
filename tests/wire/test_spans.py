"""The server span: which requests have one, what it is called, and what it says."""

from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest

from cachesvc.config.service import Telemetry
from cachesvc.model.entry import Key
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Answer, Outcome, Step
from cachesvc.model.units import Duration
from cachesvc.telemetry.traces.sampling import KEPT_PER_SECOND
from cachesvc.telemetry.traces.trace import Attribute, Span, traceparent
from tests.doubles.spans import Recording
from tests.wire.conftest import Site, running_site

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
JSON = {"Content-Type": "application/json"}
NOT_BY_CHANCE = Telemetry(trace_ratio=0.0)
EVERYTHING_IS_SLOW = Telemetry(trace_ratio=0.0, slow=Duration(1))


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
async def traced(recording: Recording) -> AsyncIterator[Site]:
    """Only what callers ask to be traced is."""
    async with running_site(NOT_BY_CHANCE, recording) as site:
        yield site


@pytest.fixture
async def slow(recording: Recording) -> AsyncIterator[Site]:
    """No request is quick enough for the tail rule."""
    async with running_site(EVERYTHING_IS_SLOW, recording) as site:
        yield site


def only(recording: Recording) -> Span:
    (span,) = recording.spans
    return span


def said(span: Span) -> Mapping[str, Attribute]:
    return dict(sorted(span.attributes.items()))


class TestWhoseTrace:
    async def test_a_sampled_caller_is_the_parent(self, traced: Site, recording: Recording) -> None:
        traced.hold("k")
        assert (await traced.ask("GET", "/v1/pages/k", SAMPLED)).status == 200
        span = only(recording)
        assert (f"{span.context.trace_id:032x}", f"{span.parent_id:016x}", span.kind) == (
            TRACE,
            CALLER,
            "server",
        )
        assert span.ended_ns >= span.started_ns

    @pytest.mark.parametrize("headers", [UNSAMPLED, {}])
    async def test_who_is_not_traced_has_none(
        self, traced: Site, recording: Recording, headers: dict[str, str]
    ) -> None:
        traced.hold("k")
        for method, target in (
            ("GET", "/v1/pages/k"),
            ("GET", "/v1/pages/missing"),
            ("DELETE", "/v1/pages/k"),
        ):
            await traced.ask(method, target, headers)
        assert recording.spans == []

    async def test_who_says_nothing_is_traced_by_chance(self, recording: Recording) -> None:
        async with running_site(Telemetry(trace_ratio=1.0), recording) as site:
            await site.ask("GET", "/v1/pages/k")
            await site.ask("GET", "/v1/pages/k", UNSAMPLED)
        assert only(recording).parent_id == 0

    async def test_what_is_malformed_is_as_if_it_were_not_there(self, recording: Recording) -> None:
        malformed = {"traceparent": f"00-{'0' * 32}-{CALLER}-01"}
        async with running_site(NOT_BY_CHANCE, recording) as site:
            await site.ask("GET", "/v1/pages/k", malformed)
        assert recording.spans == []
        async with running_site(Telemetry(trace_ratio=1.0), recording) as site:
            await site.ask("GET", "/v1/pages/k", malformed)
        assert only(recording).parent_id == 0

    async def test_without_a_recorder_nothing_is_traced(self, site: Site) -> None:
        assert (await site.ask("GET", "/v1/pages/k", SAMPLED)).status == 404

    @pytest.mark.parametrize("headers", [SAMPLED, UNSAMPLED])
    async def test_what_is_called_in_turn_is_told_of_the_trace(
        self, traced: Site, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
    ) -> None:
        told: list[str] = []
        get = traced.reader.get

        async def telling(key: Key, *options: object) -> Answer:
            told.append(traceparent())
            return await get(key)

        monkeypatch.setattr(traced.reader, "get", telling)
        await traced.ask("GET", "/v1/pages/k", headers)
        await traced.ask("GET", "/v1/pages/k", {**headers, "Cache-Control": "min-fresh=1"})
        assert [one[:36] for one in told] == [f"00-{TRACE}-"] * 2
        assert all((one == headers["traceparent"]) == (headers is UNSAMPLED) for one in told)


class TestNames:
    @pytest.mark.parametrize(
        ("method", "target", "name"),
        [
            ("GET", "/v1/pages/k", "cache.get"),
            ("HEAD", "/v1/pages/k", "cache.get"),
            ("GET", "/v1/users/k", "cache.get_or_load"),
            ("HEAD", "/v1/users/k", "cache.get_or_load"),
            ("PUT", "/v1/pages/k", "cache.set"),
            ("DELETE", "/v1/pages/k", "cache.invalidate"),
            ("POST", "/v1/pages:get", "cache.get"),
            ("POST", "/v1/users:get", "cache.get_or_load"),
            ("POST", "/v1/users:put", "cache.set"),
            ("POST", "/v1/invalidations", "cache.invalidate"),
        ],
    )
    async def test_of_each_operation(
        self, traced: Site, recording: Recording, method: str, target: str, name: str
    ) -> None:
        await traced.ask(method, target, SAMPLED)
        assert only(recording).name == name

    @pytest.mark.parametrize(
        "target",
        [
            "/livez",
            "/readyz",
            "/metrics",
            "/v1/topology",
            "/openapi.json",
            "/v1/pages/k:explain",
            "/v1/nowhere/k",
            "/",
        ],
    )
    async def test_others_have_no_span(self, traced: Site, recording: Recording, target: str) -> None:
        await traced.ask("GET", target, SAMPLED)
        await traced.ask("PATCH", target, SAMPLED)
        assert recording.spans == []


class TestWhatItSays:
    async def test_of_a_hit_of_l1(self, traced: Site, recording: Recording) -> None:
        traced.hold("k")
        await traced.ask("GET", "/v1/pages/k", SAMPLED)
        await traced.ask("GET", "/v1/pages/k", {**SAMPLED, "Cache-Control": "max-stale"})
        plain, asking = recording.spans
        assert said(plain) == said(asking)
        assert said(plain) == {
            "cache.hit": True,
            "cache.tier": "l1",
            "cachesvc.lag_ms": 250,
            "cachesvc.namespace": "pages",
            "cachesvc.outcome": "hit",
        }

    async def test_of_a_stale_copy_that_others_wait_for_too(self, traced: Site, recording: Recording) -> None:
        entry = traced.hold("k")
        trail = (Step("l1", "stale", collapsed=True),)
        traced.reader.l1.clear()
        traced.reader.answers["k"] = Answer(Outcome.STALE, entry, "l3", trail)
        traced.paths.fences.lag = None
        await traced.ask("GET", "/v1/pages/k", SAMPLED)
        assert said(only(recording)) == {
            "cache.hit": True,
            "cache.tier": "l3",
            "cachesvc.collapsed": True,
            "cachesvc.namespace": "pages",
            "cachesvc.outcome": "stale",
            "cachesvc.stale": True,
        }

    async def test_of_a_loaded_value(self, traced: Site, recording: Recording) -> None:
        entry = traced.hold("k")
        traced.reader.l1.clear()
        traced.reader.answers["k"] = Answer(Outcome.LOADED, entry, "origin")
        await traced.ask("GET", "/v1/users/k", SAMPLED)
        found = said(only(recording))
        assert (found["cache.hit"], found["cache.tier"], found["cachesvc.outcome"]) == (
            False,
            "origin",
            "loaded",
        )

    async def test_of_a_miss_with_a_lease(self, traced: Site, recording: Recording) -> None:
        await traced.ask("GET", "/v1/pages/k", {**SAMPLED, "Prefer": "lease"})
        span = only(recording)
        assert (said(span)["cache.hit"], said(span)["cachesvc.lease"], span.error) == (False, "granted", "")

    async def test_of_many(self, traced: Site, recording: Recording) -> None:
        traced.hold("a")
        traced.hold("b")
        await traced.ask(
            "POST", "/v1/pages:get", SAMPLED | JSON, msgspec.json.encode({"keys": ["a", "b", "c"]})
        )
        assert said(only(recording)) == {
            "cache.hit": False,
            "cachesvc.batch.hit": 2,
            "cachesvc.batch.miss": 1,
            "cachesvc.batch.size": 3,
            "cachesvc.lag_ms": 250,
            "cachesvc.namespace": "pages",
            "cachesvc.outcome": "ok",
        }

    async def test_of_an_invalidation(self, traced: Site, recording: Recording) -> None:
        body = {"namespace": "pages", "keys": ["a"], "tags": ["t", "u"]}
        await traced.ask("POST", "/v1/invalidations", SAMPLED | JSON, msgspec.json.encode(body))
        assert said(only(recording)) == {
            "cachesvc.all": False,
            "cachesvc.namespace": "pages",
            "cachesvc.outcome": "applied",
            "cachesvc.targets": 3,
        }

    async def test_a_failure_by_the_type_of_its_problem(self, traced: Site, recording: Recording) -> None:
        traced.reader.answers["k"] = Answer(
            Outcome.ERROR, error=RequestError(ProblemKind.DEADLINE, "too late")
        )
        await traced.ask("GET", "/v1/users/k", SAMPLED)
        span = only(recording)
        assert (span.error, said(span)["cachesvc.outcome"]) == ("deadline", "failed")

    async def test_a_refusal_is_no_failure_of_ours(self, traced: Site, recording: Recording) -> None:
        await traced.ask("GET", "/v1/pages/k", {**SAMPLED, "Cachesvc-Timeout": "soon"})
        span = only(recording)
        assert (span.error, said(span)["cachesvc.outcome"]) == ("", "refused")

    async def test_keys_are_not_in_it(self, traced: Site, recording: Recording) -> None:
        traced.hold("secret")
        await traced.ask("GET", "/v1/pages/secret", SAMPLED)
        await traced.ask("PUT", "/v1/pages/secret", SAMPLED, b"value")
        assert "secret" not in repr(recording.spans)
        assert "key_digest" not in repr(recording.spans)

    async def test_for_debugging_digests_of_keys_are(self, recording: Recording) -> None:
        async with running_site(Telemetry(trace_ratio=0.0, hashed_keys=True), recording) as site:
            await site.ask("GET", "/v1/pages/secret", SAMPLED)
        assert said(only(recording))["cachesvc.key_digest"] == f"{Key.of('pages', 'secret').digest:016x}"
        assert "secret" not in repr(recording.spans)


class TestTheTailRule:
    """A request that nobody sampled is kept as one span if it failed or was slow."""

    async def test_a_failure_is_kept(self, traced: Site, recording: Recording) -> None:
        traced.reader.fails_with = RuntimeError("a mistake of ours")
        await traced.ask("GET", "/v1/pages/k")
        span = only(recording)
        assert (span.name, span.error, span.parent_id) == ("cache.get", "internal", 0)
        assert span.ended_ns >= span.started_ns
        assert said(span)["cachesvc.namespace"] == "pages"

    async def test_as_a_child_of_the_caller_who_did_not_sample(
        self, slow: Site, recording: Recording
    ) -> None:
        await slow.ask("GET", "/v1/pages/k", UNSAMPLED)
        span = only(recording)
        assert (f"{span.context.trace_id:032x}", f"{span.parent_id:016x}") == (TRACE, CALLER)
        assert said(span)["cachesvc.outcome"] == "miss"

    async def test_a_copy_that_only_the_cache_was_asked_for_is_no_failure(
        self, traced: Site, recording: Recording
    ) -> None:
        assert (await traced.ask("GET", "/v1/pages/k", {"Cache-Control": "only-if-cached"})).status == 504
        assert recording.spans == []

    async def test_what_is_slow_is_kept(self, slow: Site, recording: Recording) -> None:
        slow.hold("k")
        for method, target in (("GET", "/v1/pages/k"), ("PUT", "/v1/pages/k"), ("DELETE", "/v1/pages/k")):
            await slow.ask(method, target)
        assert recording.names == ["cache.get", "cache.set", "cache.invalidate"]

    async def test_not_if_the_caller_asked_to_wait(self, slow: Site, recording: Recording) -> None:
        body = {"namespace": "pages", "keys": ["a"], "wait": "region"}
        assert (await slow.ask("POST", "/v1/invalidations", JSON, msgspec.json.encode(body))).status == 200
        await slow.ask("GET", "/v1/pages/k", {"Prefer": "lease, wait=1"})
        assert recording.spans == []

    async def test_nor_probes(self, slow: Site, recording: Recording) -> None:
        await slow.ask("GET", "/readyz")
        await slow.ask("GET", "/v1/nowhere/k")
        assert recording.spans == []

    async def test_when_all_fail_only_so_many_are(self, slow: Site, recording: Recording) -> None:
        """Had they taken ten seconds, all of them could be kept."""
        requests = 10 * KEPT_PER_SECOND
        asked = b"GET /v1/pages/k HTTP/1.1\r\nHost: test\r\n\r\n" * requests
        await slow.exchange(asked, *["GET"] * requests)
        assert KEPT_PER_SECOND <= len(recording.spans) < requests
