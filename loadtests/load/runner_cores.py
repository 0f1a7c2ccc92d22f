"""Keeps some processes alone on one core, and everything else on another core.

Child processes inherit the cores of the thread that starts them. So this thread is moved first,
and the processes that are to be alone are moved last.
"""

import os
from pathlib import Path
from types import TracebackType

from loadtests.bench.cores import Cores


class Apart:
    """A context manager for the thread that starts processes.

    Processes that are started inside stay off the core of the processes that `move` was called for.
    """

    def __init__(self) -> None:
        self._cores = Cores.choose()
        self._before: set[int] = set()

    def __enter__(self) -> "Apart":
        self._before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._cores.load})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.sched_setaffinity(0, self._before)

    def move(self, pid: int) -> None:
        """Moves all threads of a process; threads that it starts later follow."""
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {self._cores.server})
