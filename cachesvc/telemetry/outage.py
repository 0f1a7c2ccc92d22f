"""Log lines about a remote server that fails: one when it begins, one when it is over.

    fails                                           "… fails: why"; later failures are counted
    works                                           nothing yet
    works, `STEADY_SECONDS` after the last failure  "… works again, after n failures in s seconds"

A server that fails now and then would otherwise write both lines again and again.
"""

import logging
import time
from collections.abc import Callable

STEADY_SECONDS = 5.0


class Outage:
    """One outage log per server. `failed` and `worked` are cheap enough for every request.

    `worked` has an effect only while `is_on`, so callers may skip it otherwise.
    """

    def __init__(self, what: str, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        self.is_on = False
        self.failures = 0
        """Failures of this outage, or of the last one."""
        self._what = what
        self._log = log
        self._now = now
        self._began_at = 0.0
        self._failed_at = 0.0

    def __repr__(self) -> str:
        return f"<Outage of {self._what} [{f'on, {self.failures} failures' if self.is_on else 'none'}]>"

    def failed(self, why: object, *, cause: BaseException | None = None) -> None:
        """Counts a failure. The first one of an outage is logged with the reason `why`.

        With `cause`, the traceback of that exception is logged, too.
        """
        self._failed_at = self._now()
        if not self.is_on:
            self.is_on = True
            self.failures = 0
            self._began_at = self._failed_at
            self._log.warning("%s fails: %s", self._what, why, exc_info=cause)
        self.failures += 1

    def worked(self) -> None:
        """Ends the outage, and logs that, if nothing has failed for `STEADY_SECONDS`."""
        if self.is_on and self._now() - self._failed_at >= STEADY_SECONDS:
            self.is_on = False
            seconds = self._failed_at - self._began_at
            self._log.warning(
                "%s works again, after %d failures in %.0f s", self._what, self.failures, seconds
            )
