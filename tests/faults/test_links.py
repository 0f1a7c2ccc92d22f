"""The effect of a drill's links on bytes: the proxy in front of a real memcached."""

import socket
import time
from collections.abc import Iterator

import pytest

from loadtests.fleet_servers import memcached_server
from loadtests.fleet_topology import free_ports
from tests.faults.links import Links

LISTEN, TARGET = free_ports(2)


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    run_dir = tmp_path_factory.mktemp("links")
    server = memcached_server("m", TARGET, run_dir)
    made = Links({"m": (LISTEN, TARGET)}, run_dir)
    server.start()
    made.process.start()
    yield made
    made.process.stop()
    server.stop()


def ask(command: bytes, port: int = LISTEN) -> bytes:
    """The answer to one command on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.3) as link:
        link.sendall(command)
        return link.recv(1024)


def held(key: str) -> bytes:
    """The answer of memcached itself, past the proxy."""
    return ask(f"get {key}\r\n".encode(), TARGET)


def until_held(key: str, value: bytes) -> None:
    give_up_at = time.monotonic() + 5
    while value not in held(key):
        assert time.monotonic() < give_up_at, f"{key} is {held(key)!r}"


def test_an_open_link_passes_bytes_and_counts_them(links: Links) -> None:
    before = links.passed("m")
    assert ask(b"set a 0 0 1\r\n1\r\n") == b"STORED\r\n"
    after = links.passed("m")
    assert (after.connections - before.connections, after.up - before.up, after.down - before.down) == (
        1,
        16,
        8,
    )


def test_a_cut_link_resets_connections_and_refuses_new_ones(links: Links) -> None:
    with socket.create_connection(("127.0.0.1", LISTEN), timeout=1) as standing:
        standing.sendall(b"version\r\n")
        assert standing.recv(1024).startswith(b"VERSION")
        with links.broken("m", mode="cut"):
            with pytest.raises(ConnectionError):
                standing.recv(1024)
            with pytest.raises(ConnectionError):
                ask(b"version\r\n")
    assert ask(b"version\r\n").startswith(b"VERSION")


def test_what_a_holding_link_was_given_arrives_late_even_if_its_caller_hung_up(links: Links) -> None:
    ask(b"set late 0 0 3\r\nold\r\n")
    with links.broken("m", mode="hold", way="up"):
        with pytest.raises(TimeoutError):
            ask(b"set late 0 0 3\r\nnew\r\n")
        assert b"old" in held("late")
    until_held("late", b"new")


def test_what_a_losing_link_was_given_never_arrives(links: Links) -> None:
    ask(b"set lost 0 0 3\r\nold\r\n")
    with links.broken("m", mode="lose"), pytest.raises(TimeoutError):
        ask(b"set lost 0 0 3\r\nnew\r\n")
    assert ask(b"version\r\n").startswith(b"VERSION")
    assert b"old" in held("lost")


def test_answers_can_be_lost_alone(links: Links) -> None:
    with links.broken("m", mode="lose", way="down"), pytest.raises(TimeoutError):
        ask(b"set heard 0 0 3\r\nyes\r\n")
    assert b"yes" in held("heard")


def test_a_slow_link_delays(links: Links) -> None:
    with links.broken("m", mode="open", way="down", delay_ms=100):
        asked_at = time.monotonic()
        ask(b"version\r\n")
        assert time.monotonic() - asked_at >= 0.1
