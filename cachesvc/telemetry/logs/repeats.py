"""Holds back log lines that repeat: they are counted, and written again after a minute.

This is for what is logged per request or per attempt: unexpected failures, and what libraries
write while they retry. Our own lines about the state of something (`outage.py`) always pass: if
one of these were held back, the log could go on saying that a server is down after it came back.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 60.0
KNOWN = 256
"""The most problems that are remembered; then the one written longest ago is forgotten."""


class _Said:
    def __init__(self, at: float) -> None:
        self.at = at
        self.held_back = 0


class Repeats(logging.Filter):
    """Passes the first line of a problem, then one line per `QUIET_SECONDS`.

    A line that passes after others were held back has their number in its field `repeated`.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._said: OrderedDict[tuple[Any, ...], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is to be written; else it is counted as held back."""
        problem = _problem_of(record)
        if problem is None:
            return True
        now, said = self._now(), self._said.get(problem)
        if said is not None and now - said.at < QUIET_SECONDS:
            said.held_back += 1
            return False
        if said is not None and said.held_back:
            record.repeated = said.held_back
        self._remember(problem, now)
        return True

    def _remember(self, problem: tuple[Any, ...], now: float) -> None:
        self._said.pop(problem, None)
        self._said[problem] = _Said(now)
        if len(self._said) > KNOWN:
            self._said.popitem(last=False)


def _problem_of(record: logging.LogRecord) -> tuple[Any, ...] | None:
    """The identity of the problem that a record tells of; None for a line about a state.

    Two records tell of the same problem if the same place raised, or, without an exception, if their
    text is the same before values are filled in.
    """
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, traceback = record.exc_info
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        return (
            record.name,
            kind,
            traceback and traceback.tb_frame.f_code.co_filename,
            traceback and traceback.tb_lineno,
        )
    is_ours = record.name.partition(".")[0] == "cachesvc"
    return None if is_ours else (record.name, record.levelno, record.msg)
