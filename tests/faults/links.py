"""The links of a drill, from the test's side: the proxy's process, and orders to it."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from loadtests.fleet_servers import module_server
from loadtests.fleet_topology import free_ports
from tests.faults.proxy import Mode, Order, Passed


class Links:
    """The links of one proxy.

    Calls block: an order is a round trip on loopback, short enough for a running loop.
    """

    def __init__(self, ports: Mapping[str, tuple[int, int]], run_dir: Path) -> None:
        """`ports` has for each link, by name, the port where it listens and the port it leads to."""
        self.names = tuple(ports)
        (self._control,) = free_ports(1)
        words = [f"{name}={listen}:{target}" for name, (listen, target) in ports.items()]
        self.process = module_server(
            "proxy", ["tests.faults.proxy", str(self._control), *words], self._answers, run_dir
        )

    @contextmanager
    def broken(
        self,
        *names: str,
        mode: Mode = "cut",
        way: Literal["both", "up", "down"] = "both",
        delay_ms: float = 0,
    ) -> Iterator[None]:
        """Breaks these links while the block runs; afterwards they are open again."""
        for name in names:
            self.order(Order(name, mode, way, delay_ms))
        try:
            yield
        finally:
            self.mend(*names)

    def to(self, server: str) -> list[str]:
        """Returns the names of the links to a server."""
        return [name for name in self.names if name.endswith(f":{server}")]

    @contextmanager
    def leading(self, *names: str, to: int, resets: bool = True) -> Iterator[None]:
        """Lets these links lead to another port while the block runs, and back afterwards.

        `resets`: open connections are reset both times; else they stay where they lead.
        """
        for port in (to, 0):
            for name in names:
                if resets:
                    self.order(Order(name, "cut"))
                self.order(Order(name, to=port))
            if port:
                yield

    def mend(self, *names: str) -> None:
        """Opens these links, or all of them."""
        for name in names or self.names:
            self.order(Order(name))

    def passed(self, name: str) -> Passed:
        """The counts of a link. The link is open afterwards, whatever it was before."""
        return self.order(Order(name))

    def order(self, order: Order) -> Passed:
        """Sends an order to the proxy; the counts of the link that it concerns."""
        with (
            socket.create_connection(("127.0.0.1", self._control), timeout=5) as link,
            link.makefile("rwb") as lines,
        ):
            lines.write(msgspec.json.encode(order) + b"\n")
            lines.flush()
            return msgspec.json.decode(lines.readline(), type=Passed)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.mend()
            return True
        return False
