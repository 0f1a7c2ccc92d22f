"""A signal ends `cachesvc check`, whatever the process does at that moment."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from cachesvc.commands.check.command import _run


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_meets_a_callback_of_a_socket_ends_the_work(number: int) -> None:
    """What such a callback raises closes the socket, and ends nothing else."""
    ours, theirs = socket.socketpair()

    class Interrupted(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            os.kill(os.getpid(), number)
            _ = [*range(10)]  # the handler runs between two instructions

    async def work() -> None:
        await asyncio.get_running_loop().create_connection(Interrupted, sock=ours)
        await asyncio.sleep(5)

    theirs.send(b"x")
    with theirs:
        assert _run(work()) is False
