"""A real redis-server that the product reaches over TLS only.

Its users are those of `config/redis-users.acl`; the test itself is an administrator on a unix
socket.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cachesvc.config.logins import RedisLogin
from cachesvc.tiers.redis_connections import Access, Login
from tests.doubles.certificates import Authority
from tests.doubles.servers import RealServer, free_port, redis_server

RULES = Path(__file__).parents[2] / "config/redis-users.acl"
PASSWORD = "a-word-of-the-test"


class GuardedRedis(RealServer):
    """The server, and how its users enter it."""

    def __init__(self, server: RealServer, tls_port: int, authority: Authority) -> None:
        super().__init__(server._process, server.where)
        self.authority = authority
        self.url = f"rediss://localhost:{tls_port}/0"

    def entrance(self, user: str) -> tuple[str, Access]:
        login = Login(RedisLogin(user=f"cachesvc-{user}", password=PASSWORD))
        return self.url, Access(self.authority.client_context(), login)


@contextmanager
def guarded_redis(*options: str) -> Iterator[GuardedRedis]:
    """`options` are added to the server's command line; later ones replace earlier ones."""
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-") as directory:
        authority, port = Authority(Path(directory)), free_port()
        own, rules = authority.issue(), Path(directory) / "users.acl"
        # The clock of `turned_clock` is the test's: the scripts of the product do not read it.
        users = RULES.read_text().replace(">PASSWORD", f">{PASSWORD}").replace("~meta", "~meta ~test:clock")
        rules.write_text(users)
        words = {
            "tls-port": str(port),
            "tls-cert-file": own.cert,
            "tls-key-file": own.key,
            "tls-ca-cert-file": authority.file,
            "tls-auth-clients": "no",
            "aclfile": str(rules),
        }
        given = [word for name, value in words.items() for word in (f"--{name}", value)]
        with redis_server(*given, *options) as server:
            yield GuardedRedis(server, port, authority)
