"""The document in the queues of all regions, any of which is enough.

put     the regions are asked first, all at once; the new version is then written one region after
        the other, in the order of their names, so that two writers meet in the first one that both
        reach. A region that is away is passed over, and named
watch   each region is asked by itself. The highest version counts, wherever it is found first; the
        regions that answer at once are asked whether they have another text of its number
behind  a region that was away, or lost what it had, is given the version under which an instance
        works that has found it right
split   two writers that reach no common region may put two documents of one number: neither takes
        the other's place, and every reader says so until there is a next version
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from cachesvc.changes.document.contract import (
    ConflictError,
    Document,
    DocumentStore,
    Version,
    looked,
    two_of_one_number,
)
from cachesvc.model.errors import TierError, TierTimeoutError

T = TypeVar("T")

AGREE_SECONDS = 0.3
"""How long other regions are waited for before the version of one of them is taken."""


class QueueDocuments(DocumentStore):
    """The document of a deployment whose regions each keep it."""

    def __init__(self, regions: Mapping[str, DocumentStore]) -> None:
        """`regions` are the stores of the regions, by name."""
        super().__init__("queues")
        self._regions = dict(sorted(regions.items()))
        self._accepted: Document | None = None

    @property
    def trouble(self) -> str:
        return self._trouble or next((one.trouble for one in self._regions.values() if one.trouble), "")

    @property
    def said(self) -> Mapping[str, str]:
        return {name: text for name, one in self._regions.items() for text in one.said.values()}

    async def newest(self) -> Version | None:
        return _highest(await self._all(lambda one: one.newest()))

    async def load(self, number: int | None = None) -> Document | None:
        if number is None and (newest := await self.newest()) is not None:
            number = newest.number
        found = await self._all(lambda one: one.load(number))
        return next((one for one in found.values() if isinstance(one, Document)), None)

    async def compare_and_set(self, document: Document, expected: Version | None) -> Sequence[TierError]:
        found = await self._all(lambda one: one.newest())
        newest = _highest(found)
        if _hash(newest) != _hash(expected):
            raise ConflictError(self.where, newest)
        missed, taken = [], False
        for name, seen in found.items():
            if isinstance(seen, TierError):
                missed.append(seen)
                continue
            try:
                await self._regions[name].compare_and_set(document, seen)
            except ConflictError as conflict:
                if conflict.found != document.version:  # else an instance has brought it there meanwhile
                    raise
            except TierError as error:
                missed.append(error)
                continue
            taken = True
        if not taken:
            raise missed[0]
        return missed

    async def history(self) -> Sequence[Version]:
        kept = await self._all(lambda one: one.history())
        versions = {one for some in kept.values() if not isinstance(some, TierError) for one in some}
        return sorted(versions, key=lambda one: (-one.number, one.hash))

    async def look(self, known: Version | None) -> Document | None:
        looks = (self._look_at(name, known) for name in self._regions)
        found = [one for one in await asyncio.gather(*looks) if one is not None]
        return max(found, key=lambda one: one.version.number, default=None)

    async def watch(self, known: Version | None) -> Document:
        watches = [
            asyncio.create_task(looked(partial(self._look_at, name, known)), name=f"document of {name}")
            for name in self._regions
        ]
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            return max((one.result() for one in done), key=lambda one: one.version.number)
        finally:
            await _end(watches)

    async def _look_at(self, name: str, known: Version | None) -> Document | None:
        """Returns the region's document if it follows `known`, and no region has another one."""
        one = self._regions[name]
        found = await one.look(known)
        if found is None:
            await self._bring(one)
            return None
        if rivals := await self._rivals_of(found.version, name):
            self._trouble = two_of_one_number(found.version, rivals)
            return None
        return found

    async def _rivals_of(self, version: Version, name: str) -> Mapping[str, Version]:
        """Returns the other texts of the number that regions beside `name` tell soon, by region."""
        asked = self._ask(lambda one: one.newest(), beside=name)
        if asked:
            await asyncio.wait(asked.values(), timeout=AGREE_SECONDS)
        await _end(asked.values())
        told = {other: _result(task) for other, task in asked.items()}
        return {
            other: found
            for other, found in told.items()
            if isinstance(found, Version) and found.number == version.number and found.hash != version.hash
        }

    async def _bring(self, one: DocumentStore) -> None:
        """Puts the accepted version into a region that has an older one, or none."""
        if self._accepted is None or one.is_away:
            return
        if one.seen is None or one.seen.number < self._accepted.version.number:
            with suppress(TierError, ConflictError):
                await one.compare_and_set(self._accepted, one.seen)

    def accepted(self, document: Document) -> None:
        self._accepted = document
        self._trouble = ""

    async def close(self) -> None:
        for one in self._regions.values():
            await one.close()

    def _ask(
        self, question: Callable[[DocumentStore], Coroutine[Any, Any, T]], *, beside: str = ""
    ) -> dict[str, asyncio.Task[T]]:
        return {
            name: asyncio.create_task(question(one), name=f"document of {name}")
            for name, one in self._regions.items()
            if name != beside
        }

    async def _all(
        self, question: Callable[[DocumentStore], Coroutine[Any, Any, T]]
    ) -> Mapping[str, T | TierError]:
        """Returns the answers of all regions by name. Raises `TierError` if none answers."""
        asked = self._ask(question)
        try:
            await asyncio.wait(asked.values())
        finally:
            await _end(asked.values())
        found = {name: _result(task) for name, task in asked.items()}
        failed = [one for one in found.values() if isinstance(one, TierError)]
        if len(failed) == len(found):
            raise failed[0]
        return found


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels what still runs, and waits for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _result(task: asyncio.Task[T]) -> T | TierError:
    """Returns the result of a task that has ended, or the failure."""
    if task.cancelled():
        return TierTimeoutError(task.get_name(), "no answer in time")
    error = task.exception()
    if isinstance(error, TierError):
        return error
    return task.result()


def _highest(found: Mapping[str, Version | TierError | None]) -> Version | None:
    """Returns the version with the highest number; of two, that of the first region."""
    versions = [one for one in found.values() if isinstance(one, Version)]
    return max(versions, key=lambda one: one.number, default=None)


def _hash(version: Version | None) -> str:
    return version.hash if version is not None else ""
