"""The built-in load, against small servers that answer, stall or misbehave on cue."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import mean

import pytest

from loadtests.bench.figures import BenchError
from loadtests.bench.loops import closed_loop, open_loop, poisson_arrivals

BODY = b"x" * 512
REQUESTS = [b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"]


def answer(status: str = "200 OK", body: bytes = BODY) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def serving(reply: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """A server of one connection: calls `reply(connection, number)` for each request, numbered from 0."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            number = 0
            while connection.recv(65536):
                reply(connection, number)
                number += 1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_poisson_arrivals_ascend_within_the_time_at_the_rate_and_are_the_same_for_both_sides() -> None:
    arrivals = poisson_arrivals(1000, 20, random.Random(0))
    assert arrivals == sorted(arrivals) == poisson_arrivals(1000, 20, random.Random(0))
    assert arrivals[0] > 0
    assert arrivals[-1] < 20
    assert len(arrivals) == pytest.approx(20_000, rel=0.03)
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert mean(gap > 0.001 for gap in gaps) == pytest.approx(
        0.368, abs=0.02
    )  # e^-1, as exponential gaps have


def test_the_latency_of_a_request_that_waits_for_a_connection_counts_from_its_intended_time() -> None:
    """Fifty are meant to be sent at once over one connection: each one's latency holds those of all before it."""
    with serving(lambda connection, number: connection.sendall(answer())) as url:
        timings = open_loop(url, REQUESTS, [0.0] * 50, connections=1, least_body=512)
    assert len(timings.latencies) == 50
    assert timings.latencies == sorted(timings.latencies), (
        "from their actual sending they would come in any order"
    )
    assert len(timings.send_lags) == 1, "only the first found a connection free"


def test_an_answer_that_comes_in_pieces_is_counted_once() -> None:
    def in_pieces(connection: socket.socket, number: int) -> None:
        whole = answer()
        for cut in (10, 300, len(whole)):
            connection.sendall(whole[:cut])
            whole = whole[cut:]

    with serving(in_pieces) as url:
        timings = open_loop(url, REQUESTS, [0.0, 0.001, 0.002], connections=1, least_body=512)
    assert len(timings.latencies) == 3


@pytest.mark.parametrize("bad", [answer("404 Not Found"), answer(body=b"short"), b""])
def test_the_loops_refuse_to_count_an_answer_that_is_not_a_whole_200(bad: bytes) -> None:
    def misbehave(connection: socket.socket, number: int) -> None:
        if bad:
            connection.sendall(bad)
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with serving(misbehave) as url, pytest.raises(BenchError):
        closed_loop(url, REQUESTS, connections=1, seconds=5, least_body=512)
