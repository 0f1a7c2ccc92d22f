"""Assigns processes to cores, and measures how busy each core and process was.

The measured process is alone on one core; the load and the data servers share another core.
"""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Cores:
    """Core numbers. On a machine with one core both are the same, and ratios mean less."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The first and the last core that this process may use."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


def on_core(*cores: int) -> Callable[[], None]:
    """A function for `Popen(preexec_fn=…)` that pins the child to these cores.

    The child runs on them from its first instruction, and gets SIGTERM when the process that started
    it ends. The affinity is set before exec, because threads that a server starts inherit it and keep
    it.
    """
    prctl = ctypes.CDLL(None).prctl

    def enter() -> None:
        os.sched_setaffinity(0, cores)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return enter


class BusyMeter:
    """Share of time that a core was not idle since the meter was made.

    Every process on the core counts, not only those of the benchmark.
    """

    def __init__(self, core: int) -> None:
        self._core = core
        self._busy, self._total = _jiffies(core)

    def share(self) -> float:
        """The share so far, 0 to 1."""
        busy, total = _jiffies(self._core)
        return (busy - self._busy) / max(1, total - self._total)


class ProcessMeter:
    """CPU time of a process, over the time since the meter was made.

    All threads of the process count.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used = cpu_seconds(pid)
        self._started = time.perf_counter()

    def share(self) -> float:
        """CPU seconds per second so far."""
        return (cpu_seconds(self._pid) - self._used) / (time.perf_counter() - self._started)


class OwnMeter:
    """Meters of this process and of the one core that it is pinned to.

    They are reported beside a figure that the process measured itself.
    """

    def __init__(self) -> None:
        self._process = ProcessMeter(os.getpid())
        self._core = BusyMeter(min(os.sched_getaffinity(0)))

    def shares(self) -> dict[str, float]:
        """Both shares by name."""
        return {"process_share": self._process.share(), "core_busy": self._core.share()}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, in seconds.

    They are fields 14 and 15 of /proc/PID/stat, counted from behind the parenthesised name; see
    proc(5).
    """
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _jiffies(core: int) -> tuple[int, int]:
    """(busy, total) time of the core since boot, in ticks.

    The fourth and the fifth number of a line in /proc/stat are idle and iowait; see proc(5).
    """
    with open("/proc/stat") as stat:
        fields = next(line.split() for line in stat if line.startswith(f"cpu{core} "))
    numbers = [int(field) for field in fields[1:9]]
    total = sum(numbers)
    return total - numbers[3] - numbers[4], total
