"""The links of a drill, from the test's side: the proxy as a process, and what is done to each link."""

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
    """Blocking; an order is a round trip on loopback, short enough for a running loop."""

    def __init__(self, ports: Mapping[str, tuple[int, int]], run_dir: Path) -> None:
        """`ports`: by name of the link, where it listens and where it leads to."""
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
        """These links are so inside, and open again outside."""
        for name in names:
            self.order(Order(name, mode, way, delay_ms))
        try:
            yield
        finally:
            self.mend(*names)

    def mend(self, *names: str) -> None:
        for name in names or self.names:
            self.order(Order(name))

    def passed(self, name: str) -> Passed:
        """What an open link has seen. It is open afterwards, whatever it was."""
        return self.order(Order(name))

    def order(self, order: Order) -> Passed:
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
