"""Loads of many keys by one call of the caller's loader.

Each key has a flight of its own, which other callers can join and which owns the key's lease. The
flights of one `get_or_load_many` start in one tick, each calls `Together`, and one call of the
loader answers all of them. Keys that had to wait for another holder's lease come later, and have
calls of their own.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from cachesvc_client.values.context import ABSENT, Absent, check_awaitable, checked_mapping

V = TypeVar("V")
ManyLoader: TypeAlias = Callable[[list[str]], Awaitable[Mapping[str, V | Absent]]]
"""Loads the values of many keys. A key that is not in the mapping has no value.

A loader reads its source after it was called, not before: the leases count from the call.
"""


class _Call(Generic[V]):
    """One call of the loader, which is cancelled when nobody waits for it any more."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[asyncio.Future[V | Absent]]] = {}
        self.turn: asyncio.Semaphore | None = None
        self.task: asyncio.Task[None] | None = None

    def is_awaited(self) -> bool:
        return any(not future.done() for futures in self.waiting.values() for future in futures)

    def end(self, key: str, value: V | Absent) -> None:
        for future in self.waiting[key]:
            if not future.done():
                future.set_result(value)

    def fail(self, error: Exception | None) -> None:
        """Has every flight raise the error; None: every flight is cancelled."""
        for future in (future for futures in self.waiting.values() for future in futures):
            if error is None:
                future.cancel()
            elif not future.done():
                future.set_exception(error)


class Together(Generic[V]):
    """A loader of one key, made of a loader of many."""

    def __init__(self, loader: ManyLoader[V], tasks: set[asyncio.Task[Any]]) -> None:
        """`tasks`: the running loads of the client, which closing it cancels."""
        self._loader = loader
        self._tasks = tasks
        self._next: _Call[V] | None = None

    def without_cache(self, turn: asyncio.Semaphore) -> None:
        """Has the next call of the loader wait for a turn: one for all of its keys."""
        self._call().turn = turn

    async def __call__(self, key: str) -> V | Absent:
        call = self._call()
        future: asyncio.Future[V | Absent] = asyncio.get_running_loop().create_future()
        call.waiting.setdefault(key, []).append(future)
        try:
            return await future
        finally:
            if call.task is not None and not call.is_awaited():
                call.task.cancel()  # without effect on a call that has ended

    def _call(self) -> _Call[V]:
        """The call that starts behind the flights of this tick."""
        if self._next is None:
            self._next = _Call()
            asyncio.get_running_loop().call_soon(self._start)
        return self._next

    def _start(self) -> None:
        call, self._next = self._next, None
        if call is not None and call.is_awaited():
            call.task = asyncio.create_task(self._run(call), name="cache load of many")
            self._tasks.add(call.task)
            call.task.add_done_callback(self._tasks.discard)

    async def _run(self, call: _Call[V]) -> None:
        keys = list(call.waiting)
        try:
            async with call.turn or contextlib.nullcontext():
                values = await self._loaded(keys)
        except Exception as error:  # noqa: BLE001  raised in every flight
            call.fail(error)
        except BaseException:
            call.fail(None)
            raise
        else:
            for key in keys:
                call.end(key, values.get(key, ABSENT))

    async def _loaded(self, keys: list[str]) -> Mapping[str, V | Absent]:
        loading = self._loader(keys)
        check_awaitable(loading, self._loader)
        return checked_mapping(await loading)
