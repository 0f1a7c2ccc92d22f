"""What the log says of something far away that fails: a line when it begins to, a line when it is over, and none between.

fails ──► "… fails: why"          further failures are counted
works     nothing yet: what fails now and then would say both lines again and again
works, and has not failed for `STEADY_SECONDS` ──► "… works again, after n failures in s seconds"
"""

import logging
import time
from collections.abc import Callable

STEADY_SECONDS = 5.0


class Outage:
    """Of one thing. Both calls cost nothing worth naming; `worked` is needed only while `is_on`."""

    def __init__(self, what: str, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        self.is_on = False
        self.failures = 0
        """Of this outage, or of the last one."""
        self._what = what
        self._log = log
        self._now = now
        self._began_at = 0.0
        self._failed_at = 0.0

    def __repr__(self) -> str:
        return f"<Outage of {self._what} [{f'on, {self.failures} failures' if self.is_on else 'none'}]>"

    def failed(self, why: object) -> None:
        self._failed_at = self._now()
        if not self.is_on:
            self.is_on = True
            self.failures = 0
            self._began_at = self._failed_at
            self._log.warning("%s fails: %s", self._what, why)
        self.failures += 1

    def worked(self) -> None:
        if self.is_on and self._now() - self._failed_at >= STEADY_SECONDS:
            self.is_on = False
            seconds = self._failed_at - self._began_at
            self._log.warning(
                "%s works again, after %d failures in %.0f s", self._what, self.failures, seconds
            )
