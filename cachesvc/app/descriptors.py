"""The number of files that this process may open."""

import contextlib
import resource


def raise_descriptor_limit() -> None:
    """Raises the soft limit of open files to the hard one, as a process may do for itself.

    A soft limit of 1,024 is usual, for the sake of programs that call `select`. Where the system
    refuses (macOS has a lower bound of its own), the limit stays.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
