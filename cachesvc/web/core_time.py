"""How long a thread has used a core, or been ready and waited for one: what it would have used if it were alone there."""

import os
import time

SCHEDSTAT = "/proc/thread-self/schedstat"


class CoreTime:
    """Of the thread that makes it. Where the kernel does not tell of waiting, only what was used."""

    def __init__(self) -> None:
        try:
            self._file = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def __call__(self) -> float:
        """Seconds."""
        if self._file < 0:
            return time.thread_time()
        used, waited, _ = os.pread(self._file, 100, 0).split()
        return (int(used) + int(waited)) / 1e9

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
