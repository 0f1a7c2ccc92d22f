"""Some processes apart on a core, and everything else that is started meanwhile on another.

Children inherit the cores of the thread that starts them, so it is this thread that is moved first, and they are moved last.
"""

import os
from pathlib import Path
from types import TracebackType

from loadtests.bench.cores import Cores


class Apart:
    """Context manager, for the thread that starts processes: those inside stay off the core that `move` puts some on."""

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
        """All threads of a process; those that it starts later come along."""
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {self._cores.server})
