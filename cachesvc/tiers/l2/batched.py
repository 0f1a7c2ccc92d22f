"""A tier whose callers share exchanges with the server below it.

Gets, sets and deletes have one batcher each. All keys of an exchange share its time limit, so an
exchange is bounded by bytes as well: twenty values of 1 MiB in one exchange would hold up the small
values beside them. The bytes of a set are known, those of a get are expected (`value_sizes.py`).
The namespaces take turns (`batching.py`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.telemetry.traces.exchange_span import ExchangeSpan, Server
from cachesvc.tiers.batching import Batcher, BatcherStatistics, Run
from cachesvc.tiers.l2.contract import Lookup, Tier
from cachesvc.tiers.value_sizes import LARGE_BYTES, ValueSizes

Item: TypeAlias = tuple[Key, Entry]

MOST_BYTES = 1 << 20
"""Bytes of values in one exchange, as far as known, unless one value has more."""


class Batched:
    """Joins the keys of many callers into exchanges with `child`.

    Sets are sent in the order in which they came, and a caller that awaited its set or delete sees it
    in its next get. When a caller is cancelled, its keys are still asked for. When too many keys wait,
    new calls are answered with `TierUnavailableError` values at once.
    """

    def __init__(
        self,
        child: Tier,
        max_batch: int,
        *,
        max_waiting: int = 65_536,
        name: str = "tier",
        server: Server | None = None,
    ) -> None:
        """Makes three batchers of at most `max_batch` keys per exchange.

        At most `max_waiting` gets wait for their exchange, and as many sets, and as many deletes. `server`
        is the server at the other end, for traces; without it, exchanges get no spans.
        """

        def batcher(
            run: Run[Any, Any],
            operation: str,
            lane_of: Callable[[Any], str],
            weigh: Callable[[Sequence[Any]], int] | None = None,
        ) -> Batcher[Any, Any]:
            exchange_span = ExchangeSpan(server, operation) if server else None
            return Batcher(
                run,
                max_batch,
                max_waiting=max_waiting,
                name=f"{name} {operation}s",
                exchange_span=exchange_span,
                weigh=weigh,
                most_weight=MOST_BYTES,
                lane_of=lane_of,
            )

        self._child = child
        self._sizes = ValueSizes()
        self._gets: Batcher[Key, Entry | None] = batcher(
            self._run_gets, "get", _namespace_of_key, self._sizes.expected
        )
        self._sets: Batcher[Item, None] = batcher(self._run_sets, "set", _namespace_of_item, _bytes_to_set)
        self._deletes: Batcher[Key, None] = batcher(self._run_deletes, "delete", _namespace_of_key)
        self.batchers: Mapping[str, Batcher[Any, Any]] = {
            "gets": self._gets,
            "sets": self._sets,
            "deletes": self._deletes,
        }

    is_empty = False

    def ask(self, key: Key) -> Awaitable[Lookup]:
        return self._gets.submit(key)

    async def get_many(self, keys: Sequence[Key]) -> Sequence[Lookup]:
        if len(keys) == 1:
            return (await self._gets.submit(keys[0]),)
        return await self._gets.submit_many(keys)

    async def set_many(self, items: Sequence[Item]) -> Sequence[TierError]:
        return _failures(await self._sets.submit_many(items))

    async def delete_many(self, keys: Sequence[Key]) -> Sequence[TierError]:
        return _failures(await self._deletes.submit_many(keys))

    async def _run_gets(self, keys: list[Key]) -> Sequence[Lookup]:
        found = await self._child.get_many(keys)
        sizes = self._sizes
        namespace, reads, size = keys[0].namespace, 0, 0
        for key, lookup in zip(keys, found, strict=True):
            if key.namespace != namespace:
                sizes.learn(namespace, reads, size)
                namespace, reads, size = key.namespace, 0, 0
            if lookup is None:
                reads += 1
            elif isinstance(lookup, Entry):
                own = len(lookup.value)
                if own < LARGE_BYTES:
                    reads, size = reads + 1, size + own
                else:
                    if not sizes.is_large(key):
                        reads, size = reads + 1, size + own
                    sizes.met(key, own)
        sizes.learn(namespace, reads, size)
        return found

    async def _run_sets(self, items: list[Item]) -> Sequence[TierError | None]:
        for key, entry in items:
            self._sizes.met(key, len(entry.value))
        return _per_item(await self._child.set_many(items), len(items))

    async def _run_deletes(self, keys: list[Key]) -> Sequence[TierError | None]:
        return _per_item(await self._child.delete_many(keys), len(keys))

    async def start(self) -> None:
        await self._child.start()

    async def drain(self) -> None:
        """Waits until no key waits and no exchange is in flight. New calls are taken all the same."""
        for batcher in self.batchers.values():
            await batcher.drain()

    async def stop(self) -> None:
        """Stops the child when the exchanges in flight have ended.

        Keys that wait are answered `TierUnavailableError`.
        """
        for batcher in self.batchers.values():
            await batcher.close()
        await self._child.stop()

    def statistics(self) -> dict[str, BatcherStatistics]:
        """The statistics of the batchers by operation: `gets`, `sets` and `deletes`."""
        return {operation: batcher.statistics() for operation, batcher in self.batchers.items()}

    def __repr__(self) -> str:
        return f"<Batched {self._child!r} [{self._gets!r}]>"


def _bytes_to_set(items: Sequence[Item]) -> int:
    return sum([len(entry.value) for _, entry in items])


def _namespace_of_key(key: Key) -> str:
    return key.namespace


def _namespace_of_item(item: Item) -> str:
    return item[0].namespace


def _per_item(failures: Sequence[TierError], items: int) -> Sequence[TierError | None]:
    """Returns one result per item.

    A failure does not say which item it belongs to: when a batch failed in part, its callers are told
    the right number of failures, but not which item each one concerns. Callers only count them.
    """
    return [*failures, *[None] * (items - len(failures))]


def _failures(results: Sequence[TierError | None]) -> Sequence[TierError]:
    return [result for result in results if result is not None]
