"""Which names a caller may use for an instance that serves its own machine only.

A web page of a stranger can have its own host name resolved to 127.0.0.1 (DNS rebinding). The
browser then takes this instance for the page's own server, and lets the page read and write here.
The `Host` of such a request is the stranger's name. So an instance that listens on a loopback
address answers only requests whose `Host` is a loopback address, a name without a dot
(`localhost`, a container's name: no stranger can own one), or a name that `server.hosts` has.
"""

from collections.abc import Iterable

from cachesvc.model.errors import RequestError
from cachesvc.model.loopback import is_loopback
from cachesvc.model.problems import ProblemKind

_REMEMBERED = 1024
"""The most spellings of admitted hosts that are remembered."""


class Hosts:
    """The values of `Host` that are admitted."""

    def __init__(self, listens_on: str, also: Iterable[str] = ()) -> None:
        self._names = {name.lower() for name in also}
        self.admitted: set[bytes] | None = set() if is_loopback(listens_on) else None
        """The spellings that were found to be admitted; None if every host is."""

    def check(self, host: str | None) -> None:
        """Raises `RequestError` (`wrong-host`) for a host that is not admitted.

        A request without the header comes from no browser.
        """
        if self.admitted is None or host is None:
            return
        spelling = host.encode("utf-8", "surrogateescape")
        if spelling in self.admitted:
            return
        name = _name_of(host)
        if "." in name.rstrip(".") and not (is_loopback(name) or name in self._names):
            why = (
                f"this instance serves its own machine, and {host[:64]!r} is none of its names (server.hosts)"
            )
            raise RequestError(ProblemKind.WRONG_HOST, why, field="Host")
        if len(self.admitted) < _REMEMBERED:
            self.admitted.add(spelling)


def _name_of(host: str) -> str:
    """Returns the host without its port, in lower case; an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
