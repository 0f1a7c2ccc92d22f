"""Makes a client usable in a child process.

After `os.fork` the child has the memory and only one of the threads.

- Connections are shared with the parent: each side would read the other's answers.
- A lock that another thread held stays held for ever.
- An answer that another thread was about to bring never comes.

So every part that has connections, locks or waiters starts anew in the child, before any of the
child's code runs. Nothing there can be in the middle of a call, except the thread that forked.
"""

import os
from typing import Protocol
from weakref import WeakKeyDictionary


class Forked(Protocol):
    """A part of a client that has connections, locks or waiters."""

    def after_fork(self) -> None:
        """Drops connections without a word to the other side, and makes locks anew.

        Called in the child, where no other thread runs.
        """
        ...


_forked: WeakKeyDictionary[Forked, None] = WeakKeyDictionary()
"""The parts in the order of registration.

A part comes after those that it uses, as it may start a thread.
"""


def register(part: Forked) -> None:
    _forked[part] = None


def _in_child() -> None:
    for part in tuple(_forked):
        part.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
