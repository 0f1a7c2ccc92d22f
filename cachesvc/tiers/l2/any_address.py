"""pymemcache's client, which tries all addresses of its server's name, and logs in.

pymemcache connects to the first address only. `localhost` may be `::1` first, and a memcached that
listens on 127.0.0.1 is then never found. Its look-up has no time limit, either.

TLS begins here, when there is a connection: pymemcache would check the certificate against the
address that was tried, and not against the server's name. And pymemcache has no call for the login.
"""

from typing import Any

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from cachesvc.config.addresses import TLS_PREFIX
from cachesvc.tiers.l2.memcached_access import DEFAULT_ACCESS, MemcachedAccess, refusal_of_login
from cachesvc.tiers.names import look_up_within

LONGEST_ANSWER = 512
"""Bytes of the longest answer to the login."""


class AnyAddressClient(Client):  # type: ignore[misc]  # pymemcache has no types
    """A client that connects to the first address that answers within `connect_timeout`.

    The address that answered last is tried first: one that is dead without a refusal costs the time
    limit once, not at every connection.
    """

    server: Any
    sock: Any
    _answered: tuple[str, int] | None = None

    def __init__(self, address: str, access: MemcachedAccess = DEFAULT_ACCESS, **settings: Any) -> None:
        """`address` is `host:port`, `tls:host:port` or `unix:/path`."""
        super().__init__(address.removeprefix(TLS_PREFIX), **settings)
        self._context = access.context if address.startswith(TLS_PREFIX) else None
        self._access = access

    def _connect(self) -> None:
        self._reach()
        try:
            self._enter()
        except BaseException:
            self.close()
            raise

    def _enter(self) -> None:
        """Shakes hands and logs in, if the server is one with TLS or an auth file."""
        if self._context is not None:
            self.sock.settimeout(self.connect_timeout)
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.server[0])
        if command := self._access.login():
            self.sock.settimeout(self.connect_timeout)
            self.sock.sendall(command)
            answer = b""
            while not answer.endswith(b"\r\n") and len(answer) < LONGEST_ANSWER:
                if not (piece := self.sock.recv(LONGEST_ANSWER)):
                    break
                answer += piece
            if why := refusal_of_login(answer):
                raise MemcacheServerError(why)

    def _reach(self) -> None:
        if not isinstance(self.server, tuple):
            super()._connect()
            return
        named = host, port = self.server
        found = look_up_within(self.connect_timeout, host, port)
        addresses = [(str(address[0]), port) for *_, address in found]
        failure: Exception = OSError(f"{host} has no address")
        for address in sorted(addresses, key=lambda one: one != self._answered):
            self.server = address
            try:
                super()._connect()
            except OSError as error:
                failure = error
            else:
                self._answered = address
                return
            finally:
                self.server = named
        raise failure
