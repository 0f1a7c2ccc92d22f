"""The time that a thread has used a core, or been ready to and waited for one.

It is the time that the thread would have used if it were alone on its core.
"""

import os
import time

SCHEDSTAT = "/proc/thread-self/schedstat"


class CoreTime:
    """The core time of the thread that creates it.

    Where the kernel does not show the time of waiting, only the time used counts.
    """

    def __init__(self) -> None:
        try:
            self._file = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def __call__(self) -> float:
        """Returns seconds since some fixed moment."""
        if self._file < 0:
            return time.thread_time()
        used, waited, _ = os.pread(self._file, 100, 0).split()
        return (int(used) + int(waited)) / 1e9

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
