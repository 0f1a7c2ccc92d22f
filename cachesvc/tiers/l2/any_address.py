"""pymemcache's client, which also tries the further addresses of its server's name.

pymemcache connects to the first address only. `localhost` may be `::1` first, and a memcached that
listens on 127.0.0.1 is then never found. Its look-up has no time limit, either.
"""

from typing import Any

from pymemcache.client.base import Client

from cachesvc.tiers.names import look_up_within


class AnyAddressClient(Client):  # type: ignore[misc]  # pymemcache has no types
    """A client that connects to the first address that answers within `connect_timeout`.

    The address that answered last is tried first: one that is dead without a refusal costs the time
    limit once, not at every connection.
    """

    server: Any
    _answered: tuple[str, int] | None = None

    def _connect(self) -> None:
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
