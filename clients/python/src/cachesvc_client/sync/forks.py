"""After `os.fork` the child has the memory and only one of the threads.

Connections are shared with the parent, and would be answered with each other's answers; a lock that another thread held stays
held for ever; what another thread was about to bring never comes. So everything that has connections, locks or waiters starts
anew in the child, before any of its code runs: nothing there can be in the middle of a call, except the thread that forked.
"""

import os
from typing import Protocol
from weakref import WeakKeyDictionary


class Forked(Protocol):
    def after_fork(self) -> None:
        """Called in the child, alone. Let go of connections without a word to the other side, make locks anew."""
        ...


_forked: WeakKeyDictionary[Forked, None] = WeakKeyDictionary()
"""In the order of registration: a part comes after those that it uses, as it may start a thread."""


def register(part: Forked) -> None:
    _forked[part] = None


def _in_child() -> None:
    for part in tuple(_forked):
        part.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
