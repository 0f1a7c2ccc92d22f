"""Which core runs what: the measured process alone on one, load and data servers on another. And how busy each was."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Cores:
    """Core numbers. On a machine with one core both are the same, and the ratios say less."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


def on_core(*cores: int) -> Callable[[], None]:
    """For `Popen(preexec_fn=…)`: run on these cores only, from the first instruction, and end with the process that started it.

    Set before exec, because threads that a server starts inherit the affinity and keep it.
    """
    prctl = ctypes.CDLL(None).prctl

    def enter() -> None:
        os.sched_setaffinity(0, cores)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return enter


class BusyMeter:
    """Share of time that a core was not idle since the meter was made. All that runs on it counts, not only ours."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._busy, self._total = _jiffies(core)

    def share(self) -> float:
        busy, total = _jiffies(self._core)
        return (busy - self._busy) / max(1, total - self._total)


class ProcessMeter:
    """CPU time of a process, all its threads, over the time elapsed since the meter was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._used = cpu_seconds(pid)
        self._started = time.perf_counter()

    def share(self) -> float:
        return (cpu_seconds(self._pid) - self._used) / (time.perf_counter() - self._started)


class OwnMeter:
    """Of this process and the one core that it is pinned to; reported beside a figure that it measured itself."""

    def __init__(self) -> None:
        self._process = ProcessMeter(os.getpid())
        self._core = BusyMeter(min(os.sched_getaffinity(0)))

    def shares(self) -> dict[str, float]:
        return {"process_share": self._process.share(), "core_busy": self._core.share()}


def cpu_seconds(pid: int) -> float:
    """User and system time; proc(5): fields 14 and 15, counted from behind the parenthesised name."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _jiffies(core: int) -> tuple[int, int]:
    """(busy, total) of the core since boot; proc(5): the fourth and fifth numbers are idle and iowait."""
    with open("/proc/stat") as stat:
        fields = next(line.split() for line in stat if line.startswith(f"cpu{core} "))
    numbers = [int(field) for field in fields[1:9]]
    total = sum(numbers)
    return total - numbers[3] - numbers[4], total
