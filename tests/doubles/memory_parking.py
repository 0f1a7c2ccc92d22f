"""Parked targets in the memory of this process, kept as the queue's Lua keeps them."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import Parked
from cachesvc.changes.redis.parked_items import EVERYTHING, name_of
from cachesvc.model.clock import SECONDS


class _Kept(Struct):
    parked: Parked
    number: int
    """The number of its first parking."""


class MemoryParking:
    """The parked targets of every cell, the earliest first."""

    def __init__(self, most: int = 100_000, most_bytes: int = 16 << 20) -> None:
        self.most, self.most_bytes = most, most_bytes
        self.number = 0
        self.cells: dict[str, dict[str, _Kept]] = {}
        self.newest: dict[str, int] = {}
        self.tried_us: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self.cells.values()))

    @property
    def overflowed(self) -> int:
        return sum(EVERYTHING in kept for kept in self.cells.values())

    def clear(self) -> None:
        self.cells.clear()
        self.newest.clear()
        self.tried_us.clear()

    def park(self, targets: Sequence[Parked], now_us: int) -> None:
        if not targets:
            return
        self.number += 1
        for target in targets:
            # An `at` of an instance whose clock is behind: the commit was before now.
            self._park(replace(target, at=now_us) if target.at < now_us - 60 * SECONDS else target)
        for cell in {target.cell for target in targets}:
            kept = self.cells[cell]
            if len(kept) > self.most or sum(map(len, kept)) > self.most_bytes:
                first = next(iter(kept.values()))
                whole = Parked(cell, self.newest[cell], first.parked.placement)
                self.cells[cell] = {EVERYTHING: _Kept(whole, first.number)}

    def _park(self, target: Parked) -> None:
        kept = self.cells.setdefault(target.cell, {})
        name = EVERYTHING if EVERYTHING in kept else name_of(target)
        known = kept.setdefault(name, _Kept(target, self.number))
        if known.parked.at < target.at:
            known.parked = replace(known.parked, at=target.at, placement=target.placement)
        self.newest[target.cell] = max(self.newest.get(target.cell, 0), target.at)
        self.tried_us.setdefault(target.cell, 0)

    def take(self, now_us: int, idle_us: int, count: int, outlived_us: int) -> Iterator[Parked]:
        for cell in [*self.cells]:
            if not (now_us - self.tried_us[cell] >= idle_us or self.tried_us[cell] > now_us):
                continue
            first = [kept.parked for kept in self.cells[cell].values()][:count]
            left = [parked for parked in first if parked.at >= now_us - outlived_us]
            self._forget([parked for parked in first if parked not in left])
            if cell in self.cells:
                self.tried_us[cell] = now_us if left else 0
            yield from left

    def settle(self, taken: Iterable[Parked]) -> Iterator[Parked]:
        """Yields the targets that no cell is missing any more."""
        for one in taken:
            name = name_of(one)
            kept = self.cells.get(one.cell, {}).get(name)
            if kept is not None and kept.parked == replace(one, issuers=()):
                self._forget([one])
                if not any(name in others or EVERYTHING in others for others in self.cells.values()):
                    yield one

    def is_left(self, cell: str, number: int) -> bool:
        """True if something is left of what was parked for the cell up to this number."""
        return any(kept.number <= number for kept in self.cells.get(cell, {}).values())

    def _forget(self, gone: Iterable[Parked]) -> None:
        for one in gone:
            kept = self.cells[one.cell]
            del kept[name_of(one)]
            self.tried_us[one.cell] = 0
            if not kept:
                del self.cells[one.cell], self.newest[one.cell], self.tried_us[one.cell]
