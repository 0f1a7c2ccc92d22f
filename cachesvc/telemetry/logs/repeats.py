"""The same problem again is no news: it is counted, and said once more after a while.

For what is logged per request or per try: failures that nobody expected, and what libraries say while they retry. Our own
lines on the state of something (`outage.py`) pass: holding one back would leave the log saying that what is down is up.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 60.0
KNOWN = 256
"""Problems that are remembered; beyond them the one that was said first is forgotten."""


class _Said:
    def __init__(self, at: float) -> None:
        self.at = at
        self.held_back = 0


class Repeats(logging.Filter):
    """A line that passes after some were held back has their number in its field `repeated`."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._said: OrderedDict[tuple[Any, ...], _Said] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
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
    """What makes two lines the same problem: the place that raised, or the text without what is filled in. None: a state."""
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
