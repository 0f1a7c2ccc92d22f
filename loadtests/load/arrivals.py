"""Open-loop arrivals: requests come when they come, and not when the last one was answered.

A group of users has one schedule, a Poisson process. A user that is free takes the next moment of it, sleeps until then, and
makes the request; its latency counts from the moment, not from the start. So if all users are held up, what arrives meanwhile
is not left out (coordinated omission): it is made late, and its wait counts. How late requests start is recorded, too: with
enough users (rate x longest latency) it is small, or else the driver is too slow for what it claims to measure.

A request that finds no user within the caller's patience is not made, and is a failure: a real caller would be gone.
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
    """Seconds after the moment that it was due; None if nothing is due at any moment (a closed loop)."""
    starved: bool = False
    """No user was free at that moment."""

    @property
    def lateness(self) -> float:
        return self.late or 0.0


CLOSED = Turn(None)


@dataclass(frozen=True)
class Step:
    begins: float
    """Seconds since the start of the load."""
    rate: float
    """Requests/s from then on."""


def steps_of(form: str) -> tuple[Step, ...]:
    """`500`, or `500,20s:1500,40s:500` for a rate that changes. Raises `ValueError`."""
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
    """The moments at which requests are due, from now on, at `share` of the rate of `steps`."""

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
        """May change; moments that were given stay as they are."""
        self._steps = steps
        self._random = random
        self._clock = clock
        self._sleep = sleep
        self._begun = clock()
        self._at = 0.0
        """Of the moment that was given last, in seconds since the beginning."""

    def take(self) -> Turn:
        """Wait for the next moment, which is nobody else's. Returns at once if it has passed."""
        # The schedule moves on before the wait, so that users who wait at the same time wait for different moments.
        due = self._begun + self._next()
        wait = due - self._clock()
        if wait > 0:
            self._sleep(wait)
        return Turn(max(0.0, self._clock() - due), starved=wait <= 0)

    def _next(self) -> float:
        """A gap that would reach past the end of a step begins anew there, at the new rate: the process has no memory."""
        while True:
            rate, ends = self._step()
            gap = self._random.expovariate(rate) if rate else inf
            if self._at + gap < ends:
                self._at += gap
                return self._at
            self._at = ends

    def _step(self) -> tuple[float, float]:
        """The rate at the moment given last, and when it ends."""
        number = bisect_right(self._steps, self._at, key=lambda step: step.begins)
        ends = self._steps[number].begins if number < len(self._steps) else inf
        return self._steps[number - 1].rate * self.share, ends
