"""The master of a name, as its sentinels tell it: one more way to look an address up.

**All are asked at once.** The answers of a majority are waited for, and after the first answer no
longer than `OTHERS_SECONDS`: a sentinel that is down, hangs or does not know the name is passed
over. One that answers at once is not believed alone, because it may be cut off from the others, and
name a master that they have replaced.

**The newest answer counts.** Each failover has a number, the `config-epoch`, which grows and which
sentinels pass on to each other; of two addresses the one with the larger number is the later one
(Redis Sentinel, "Configuration epochs"). A sentinel that lags is so outvoted by any one that does
not. Of equal numbers the address counts that more sentinels name.

**A switch is noticed without a failure.** Sentinels demote a master that was replaced only after
some ten seconds, and until then it takes what it is sent, which is lost. So while connections are
used, one sentinel after the other is asked, once per `FOLLOW_SECONDS`, and connections to the
server that was replaced are closed.

**An answer may be wrong all the same:** old, or a lie. It is an address and nothing more. Whoever
connects there asks the server for its role and its identity, as behind any name (`l3/issuer.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from cachesvc.config.addresses import address
from cachesvc.telemetry.link_faults import told

QUESTIONS = ("GET-MASTER-ADDR-BY-NAME", "MASTER")
"""The commands of SENTINEL that a sentinel is asked, in one exchange."""
ANSWER_SECONDS = 2.0
"""The time that sentinels have for an answer, as long as none has answered.

One at a distance of 200 ms needs half of it: TCP, TLS, AUTH and the exchange.
"""
OTHERS_SECONDS = 0.5
"""The time that the others have after the first answer, unless a majority answers before."""
ANSWER_HOLDS_SECONDS = 0.2
"""The time for which an answer, or a failure, counts for further callers.

While a master is away each attempt to connect to it looks its address up. No failover is as short.
"""
FOLLOW_SECONDS = 1.0
"""The time between two looks for a switch, while connections are used."""

Place = tuple[str, int]
"""Host and port."""


class Told(NamedTuple):
    """The answer of one sentinel."""

    epoch: int
    """The number of the failover that made this address the master's."""
    place: Place


Ask = Callable[[], Coroutine[Any, Any, Told]]
"""Asks one sentinel. Raises `RedisError` or `OSError`."""


class MasterName:
    """A master's name, and the sentinels that tell its address."""

    def __init__(self, name: str, sentinels: Sequence[tuple[Place, Ask]]) -> None:
        self.name = name
        self._sentinels = sentinels
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._why = ""
        """Why the last look-up told no address; empty if it told one."""
        self._epoch = 0
        """The number that came with `place`."""
        self._turn = 0
        """Looks for a switch so far."""
        self._following: asyncio.Task[None] | None = None
        self._followed_at = float("-inf")
        self.place: Place | None = None
        """The last address that was told; None before the first."""
        self.moved: Callable[[Place], Awaitable[None]] = _ignored
        """Called with each address that is another one than before."""

    def __repr__(self) -> str:
        return f"<MasterName {self.name} [at {address(*self.place) if self.place else 'no known place'}]>"

    async def look_up(self) -> Place:
        """Returns the master's address. Raises redis-py's `ConnectionError` if none tells it.

        The error has what each sentinel said. Callers share a look-up; a cancelled one leaves it to the
        next.
        """
        loop = asyncio.get_running_loop()
        async with self._lock:
            if loop.time() - self._asked_at >= ANSWER_HOLDS_SECONDS:
                await self._ask_all()
                self._asked_at = loop.time()
        if self._why or self.place is None:
            raise RedisConnectionError(self._why)
        return self.place

    def follow(self) -> None:
        """Begins to look for a switch, unless that was done a moment ago. Nobody waits for it."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._followed_at >= FOLLOW_SECONDS and self.place is not None:
            self._followed_at = loop.time()
            if self._following is None or self._following.done():
                self._following = loop.create_task(self._look_for_a_switch(), name=f"following {self.name}")

    async def close(self) -> None:
        """Ends a look that is under way."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])

    async def _look_for_a_switch(self) -> None:
        _, ask = self._sentinels[self._turn % len(self._sentinels)]
        self._turn += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                seen = await ask()
            if seen.place != self.place and seen.epoch >= self._epoch:
                await self.look_up()
        except Exception:  # noqa: BLE001, S110  another sentinel is next; who connects is told what is wrong
            pass

    async def _ask_all(self) -> None:
        asked = {
            asyncio.create_task(ask(), name=f"asking a sentinel of {self.name}"): place
            for place, ask in self._sentinels
        }
        try:
            answers = await self._answers(list(asked))
            if newest := _newest(answers):
                before, self.place, self._epoch, self._why = self.place, newest.place, newest.epoch, ""
                if before not in (None, self.place):
                    await self.moved(newest.place)
            else:
                said = "; ".join(f"{address(*place)}: {_failure_of(task)}" for task, place in asked.items())
                self._why = f"no sentinel tells the address of {self.name!r}: {said}"
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _answers(self, asked: "Sequence[asyncio.Task[Told]]") -> Sequence[Told]:
        loop = asyncio.get_running_loop()
        until = loop.time() + ANSWER_SECONDS
        pending = set(asked)
        answers: list[Told] = []
        while pending and len(answers) * 2 <= len(asked):
            done, pending = await asyncio.wait(
                pending, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            new = [task.result() for task in done if task.exception() is None]
            if new and not answers:
                until = min(until, loop.time() + OTHERS_SECONDS)
            answers += new
        return answers


def told_by(name: str, said: Any) -> Told:
    """Returns the answer that a sentinel's replies to `QUESTIONS` are.

    The first is the promoted server from the moment on that it is one; the second has the number.
    Raises `RedisError` for answers of another shape, or none.
    """
    try:
        (host, port), fields = said
        epoch = dict(zip(fields[::2], fields[1::2], strict=True))[b"config-epoch"]
        return Told(int(epoch), (host.decode(), int(port)))
    except (TypeError, ValueError, KeyError, AttributeError):
        if isinstance(said, list) and said and said[0] is None:
            raise RedisError(f"it knows no master {name!r}") from None
        raise RedisError("it gave an answer of an unknown shape") from None


async def _ignored(_: Place) -> None:
    pass


def _newest(answers: Sequence[Told]) -> Told | None:
    places = [one.place for one in answers]
    return max(answers, key=lambda one: (one.epoch, places.count(one.place)), default=None)


def _failure_of(task: "asyncio.Task[Told]") -> str:
    if not task.done():
        return "no answer"
    error = None if task.cancelled() else task.exception()
    return told(error, "sentinel") if isinstance(error, Exception) else "no answer"
