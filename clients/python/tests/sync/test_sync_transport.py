"""Deadlines, failover, retries and problem documents, as in the async flavour."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from cachesvc_client import CacheError
from cachesvc_client.sync import Cache

from clients.python.tests.sync.callers import Caller, until_proven
from clients.python.tests.sync.threaded_service import ThreadedService

OVERLOADED = {
    "type": "https://cachesvc.dev/problems/overloaded",
    "detail": "come back",
    "retryable": True,
    "request_id": "r-1",
}


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def trickling_server(pause_seconds: float = 0.02) -> Iterator[str]:
    """Answers with a body of which a byte comes now and then, each in time for a socket's timeout, and never all of them."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                with suppress(ConnectionError):
                    while not stop.wait(pause_seconds):
                        connection.sendall(b"x")

        Caller(serve)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        stop.set()


def test_the_next_instance_answers_when_one_cannot_be_reached(threaded: ThreadedService) -> None:
    threaded.fake.hold("a", b"1")
    with Cache.from_url(f"http://127.0.0.1:{closed_port()}, {threaded.url}") as cache:
        pages = cache.namespace("pages")
        assert pages.get("a") == b"1"
        pages.set("b", b"2")
        assert threaded.fake.held["b"].value == b"2"
        assert cache.statistics().failovers == 1, "the second call does not try the first instance again"


def test_a_restarted_instance_is_found_again_at_once(threaded: ThreadedService, sync_cache: Cache) -> None:
    """Its kept connections are dead, which says nothing about the instance."""
    pages = sync_cache.namespace("pages")
    pages.set("a", b"1")
    port = int(threaded.url.rpartition(":")[2])
    threaded.stop()
    threaded.start(port)
    assert pages.get("a") == b"1"


def test_nobody_there_is_an_error_that_may_pass() -> None:
    with Cache.from_url(f"http://127.0.0.1:{closed_port()}") as cache, pytest.raises(CacheError) as caught:
        cache.namespace("pages").get("a")
    assert (caught.value.type, caught.value.status, caught.value.retryable) == ("unreachable", 0, True)


def test_no_answer_in_time_is_an_error_and_the_service_was_told_a_little_less(
    threaded: ThreadedService,
) -> None:
    threaded.shut_gate()
    with Cache.from_url(threaded.url, default_timeout="30ms") as cache:
        pages = cache.namespace("pages")
        for call in (
            lambda: pages.get("a"),
            lambda: pages.delete("a"),
            lambda: pages.get_many(["a"]),
            lambda: pages.set("a", b""),
        ):
            with pytest.raises(CacheError) as caught:
                call()
            assert caught.value.type == "deadline"
    threaded.open_gate()
    assert all(
        0 < int(request.headers["Cachesvc-Timeout"].removesuffix("ms")) <= 27 for request in threaded.fake.saw
    )


def test_a_body_that_trickles_in_does_not_stretch_the_deadline() -> None:
    with trickling_server() as url, Cache.from_url(url, default_timeout="100ms") as cache:
        cache._region.asked(1e12)  # the one answer of this server is for the read
        caller = Caller(lambda: cache.namespace("pages").get("a"))
        outcome = caller.outcome()
    assert isinstance(outcome, CacheError)
    assert outcome.type == "deadline"


def test_a_topology_that_trickles_in_fails_no_call_by_itself() -> None:
    with trickling_server(0.0001) as url, Cache.from_url(url, default_timeout="100ms") as cache:
        caller = Caller(lambda: cache.namespace("pages").get("a"))
        outcome = caller.outcome()
    assert isinstance(outcome, CacheError), "and no TimeoutError of the topology"
    assert outcome.type == "deadline"


def test_a_call_may_have_less_time_than_others(threaded: ThreadedService, sync_cache: Cache) -> None:
    threaded.fake.hold("a", b"1")
    threaded.shut_gate()
    pages = sync_cache.namespace("pages")
    patient = Caller(lambda: pages.get("a"))
    with pytest.raises(CacheError) as caught:
        pages.get("a", timeout="20ms")
    assert caught.value.type == "deadline"
    threaded.open_gate()
    assert patient.result() == b"1"


def test_a_problem_document_becomes_the_error(threaded: ThreadedService, sync_cache: Cache) -> None:
    threaded.fake.problem = (503, OVERLOADED, {"Retry-After": "20"})
    with pytest.raises(CacheError) as caught:
        sync_cache.namespace("pages").get("a")
    error = caught.value
    assert (error.type, error.status, error.retryable, error.retry_after, error.request_id, str(error)) == (
        "overloaded",
        503,
        True,
        20.0,
        "r-1",
        "overloaded: come back",
    )


def test_a_failure_that_may_pass_is_retried_within_the_budget(
    threaded: ThreadedService, sync_cache: Cache
) -> None:
    threaded.fake.problem = (503, OVERLOADED, {})
    with pytest.raises(CacheError):
        sync_cache.namespace("pages").get("a")
    assert len(threaded.fake.calls(":get")) == 3
    assert sync_cache.statistics().retries == 2


def test_what_may_have_used_a_lease_is_not_retried(threaded: ThreadedService, sync_cache: Cache) -> None:
    threaded.fake.problem = (503, OVERLOADED, {})
    assert sync_cache.namespace("pages").get_or_load("a", lambda _key: b"1") == b"1"
    assert len(threaded.fake.calls(":get")) == 1


@pytest.mark.parametrize("answer", [b"", b"nonsense", b"\x81\xa7results\x90", b"\x81\xa7results\xa1x"])
def test_an_answer_out_of_the_protocol_is_an_error(
    threaded: ThreadedService, sync_cache: Cache, answer: bytes
) -> None:
    threaded.fake.raw_answer = answer
    with pytest.raises(CacheError) as caught:
        sync_cache.namespace("pages").get("a", timeout=2)
    assert caught.value.type == "bad-answer"


def test_large_values_arrive_whole(sync_cache: Cache) -> None:
    pages = sync_cache.namespace("pages")
    values = {f"k{i}": bytes(200_000) for i in range(6)}
    pages.set_many(values)
    assert pages.get_many(values) == values


def test_a_cache_that_was_closed_says_so(threaded: ThreadedService) -> None:
    cache = Cache.from_url(threaded.url)
    pages = cache.namespace("pages")
    for _ in range(2):
        with cache:
            assert pages.get("a") is None
        with pytest.raises(CacheError, match="closed"):
            pages.get("a")


def test_a_call_under_way_outlives_the_block(threaded: ThreadedService) -> None:
    threaded.fake.hold("a", b"1")
    with Cache.from_url(threaded.url, default_timeout="5s") as cache:
        pages = cache.namespace("pages")
        threaded.shut_gate()
        caller = Caller(lambda: pages.get("a"))
        threaded.await_arrivals(1)
    threaded.open_gate()
    assert caller.result() == b"1"


def test_each_key_is_asked_of_its_own_instance_and_of_the_next_when_that_is_gone(
    threaded: ThreadedService,
) -> None:
    with ThreadedService() as other:
        services = {"a": threaded, "b": other}
        instances = {name: service.url for name, service in services.items()}
        topology = {
            "version": 1,
            "regions": {"eu": {"instances": instances}},
            "here": {"region": "eu", "instance": "a"},
        }
        for service in services.values():
            service.fake.topology = topology
        keys = [f"k{i}" for i in range(40)]
        with Cache.from_url(threaded.url, default_timeout="5s") as cache:
            pages = cache.namespace("pages")
            until_proven(cache)
            pages.set_many(dict.fromkeys(keys, b"1"))
            held = [set(service.fake.held) for service in services.values()]
            assert all(held)
            assert held[0] | held[1] == set(keys)
            assert not held[0] & held[1]
            assert pages.get_many(keys) == dict.fromkeys(keys, b"1")
            other.stop()
            key = min(held[1])
            pages.set(key, b"2")
            assert threaded.fake.held[key].value == b"2"


def test_the_trace_of_the_caller_goes_along(threaded: ThreadedService) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Cache.from_url(threaded.url, traceparent=lambda: trace) as cache:
        cache.namespace("pages").get("a")
    assert threaded.fake.saw[-1].headers["traceparent"] == trace
