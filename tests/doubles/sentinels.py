"""A Redis master with replicas, watched by three sentinels: all real processes, on free ports.

Sentinels take a server that was replaced for a replica only after ten seconds and more. So a test
that breaks several masters one after the other has a replica for each.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.doubles.servers import RealServer, Where, accepts, installed, redis_server, running_server

NAME = "mymaster"
PATIENCE_SECONDS = 20.0


class Watched:
    """Redis servers, of which one is the master, and their sentinels."""

    def __init__(self, servers: Sequence[RealServer], sentinels: Sequence[RealServer]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    def url(self, database: int = 0) -> str:
        """The URL of a database of the master."""
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{NAME}/{database}"

    def master(self) -> RealServer:
        """The server that the first sentinel that answers names as the master."""
        port = int(self._ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Has the sentinels promote the replica, and returns when they name it."""
        old = self.master()
        self._ask("SENTINEL", "FAILOVER", NAME)
        self.wait_replaced(old)

    def wait_replaced(self, old: RealServer) -> None:
        """Returns when a sentinel names another master than this one."""
        _wait(f"a master in place of {old}", lambda: self.master() is not old)

    def wait_watched(self, replicas: int) -> None:
        """Returns when each sentinel knows so many replicas in step with the master, and the others."""
        for one in self.sentinels:
            _wait(f"{one} knows all", partial(self._knows_all, one, replicas))

    def _knows_all(self, sentinel: RealServer, in_step: int) -> bool:
        with _client(sentinel) as asking:
            replicas = asking.execute_command("SENTINEL", "REPLICAS", NAME)
            peers = asking.execute_command("SENTINEL", "SENTINELS", NAME)
        links = [dict(zip(one[::2], one[1::2], strict=True))[b"master-link-status"] for one in replicas]
        return len(peers) == len(self.sentinels) - 1 and links.count(b"ok") >= in_step

    def _ask(self, *command: str) -> list[bytes]:
        for one in self.sentinels:
            with suppress(RedisError, OSError), _client(one) as asking:
                found: list[bytes] = asking.execute_command(*command)
                return found
        raise AssertionError("no sentinel answers")


@contextmanager
def watched(replicas: int, *options: str, master: RealServer | None = None) -> Iterator[Watched]:
    """A master with this many replicas, and three sentinels that know all of them.

    `options` are of the servers. `master`: one that runs already.
    """
    with ExitStack() as running:
        first = master or running.enter_context(redis_server(*OPTIONS, *options, tcp=True))
        follows = ("--replicaof", "127.0.0.1", str(first.port))
        others = [
            running.enter_context(redis_server(*OPTIONS, *options, *follows, tcp=True))
            for _ in range(replicas)
        ]
        lines = (
            f"sentinel monitor {NAME} 127.0.0.1 {first.port} 2",
            f"sentinel down-after-milliseconds {NAME} 1000",
            f"sentinel failover-timeout {NAME} 1500",
            f"sentinel parallel-syncs {NAME} {replicas}",
        )
        made = Watched([first, *others], [running.enter_context(sentinel(*lines)) for _ in range(3)])
        made.wait_watched(replicas)
        yield made


OPTIONS = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
"""A replica is in step at once, and an idle master's is known to be."""


@contextmanager
def sentinel(*lines: str, port: str = "port") -> Iterator[RealServer]:
    """A sentinel with these lines in its file; `port` is the setting that gets its port."""

    def command(where: Where, directory: Path) -> list[str]:
        config = directory / "sentinel.conf"  # a sentinel writes what it learns into its own file
        listen = ("port 0", f"{port} {where[1]}") if port != "port" else (f"port {where[1]}",)
        config.write_text("\n".join([*listen, "bind 127.0.0.1", f"dir {directory}", *lines, ""]))
        return [installed("redis-server"), str(config), "--sentinel"]

    with running_server("redis-sentinel", command, accepts, True, signal.SIGKILL) as server:
        yield server


def _client(sentinel: RealServer) -> Redis:
    return Redis(port=sentinel.port, socket_timeout=1, protocol=2)


def _wait(what: str, holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.05)
