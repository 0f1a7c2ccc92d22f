"""Open-loop arrivals: requests come at their own moments, answered or not.

A group of users has one schedule, a Poisson process. A free user takes the next moment of the
schedule, sleeps until then, and makes the request; the latency counts from that moment, not from
the start of the request. So if all users are held up, the requests of that time are not left out
(coordinated omission): they are made late, and their wait counts. The lateness of requests is
recorded, too. With enough users (rate × longest latency) it is small; if it is not, the driver is
too slow for what it claims to measure.

A request that finds no free user within the caller's timeout is not made and counts as a failure:
a real caller would have gone away.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from random import Random
from typing import NamedTuple


class Turn(NamedTuple):
    """The start of one request."""

    late: float | None
    """Seconds after the moment at which the request was due.

    None in a closed loop, where no request is due at a given moment.
    """
    starved: bool = False
    """True if no user was free at the moment at which the request was due."""

    @property
    def lateness(self) -> float:
        """Seconds after the moment at which the request was due; 0 in a closed loop."""
        return self.late or 0.0


CLOSED = Turn(None)


@dataclass(frozen=True)
class Step:
    """One rate of a schedule and the time from which it holds."""

    begins: float
    """Seconds since the start of the load."""
    rate: float
    """Requests per second from then on."""


@dataclass(frozen=True)
class Times:
    """A rate that depends on a measurement: a multiple of an earlier stretch's goodput."""

    factor: float
    stretch: str


def steps_of(form: str) -> tuple[Step, ...]:
    """The steps that `form` describes: `500`, or `500,20s:1500,40s:500` for a rate that
    changes.

    Raises `ValueError` for any other form.
    """
    first, *later = form.split(",")
    try:
        steps = [Step(0.0, float(first))]
        for words in later:
            begins, _, rate = words.partition(":")
            steps.append(Step(float(begins.removesuffix("s")), float(rate)))
    except ValueError:
        raise ValueError(f"{form!r}: requests/s, such as 500, or 500,20s:1500,40s:500") from None
    follow = all(step.begins < following.begins for step, following in pairwise(steps))
    if not follow or min(step.rate for step in steps) < 0 or not steps[-1].rate:
        raise ValueError(
            f"{form!r}: steps follow one another, no rate is negative, and the last one is not 0"
        )
    return tuple(steps)


class Arrivals:
    """The moments, from now on, at which requests are due: `share` of the rate of `steps`."""

    def __init__(
        self,
        steps: Sequence[Step],
        share: float,
        random: Random,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self.share = share
        """May change; the moments that were given out stay as they are."""
        self._steps = steps
        self._random = random
        self._clock = clock
        self._sleep = sleep
        self._begun = clock()
        self._at = 0.0
        """The moment that was given out last, in seconds since the beginning."""

    def take(self) -> Turn:
        """Waits for the next moment, which no other user gets.

        Returns at once if that moment has passed.
        """
        # The schedule moves on before the wait, so users who wait at the same time wait for different
        # moments.
        due = self._begun + self._next()
        wait = due - self._clock()
        if wait > 0:
            self._sleep(wait)
        return Turn(max(0.0, self._clock() - due), starved=wait <= 0)

    def _next(self) -> float:
        """Moves to the next moment and returns it.

        A gap that would reach past the end of a step begins anew there, at the new rate. That is correct
        because a Poisson process has no memory.
        """
        while True:
            rate, ends = self._step()
            gap = self._random.expovariate(rate) if rate else inf
            if self._at + gap < ends:
                self._at += gap
                return self._at
            self._at = ends

    def _step(self) -> tuple[float, float]:
        """The rate at the moment that was given out last, and the time at which this rate ends."""
        number = bisect_right(self._steps, self._at, key=lambda step: step.begins)
        ends = self._steps[number].begins if number < len(self._steps) else inf
        return self._steps[number - 1].rate * self.share, ends
