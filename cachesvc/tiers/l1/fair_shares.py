"""The choice of the room that gives up an entry when L1 is full.

    excess of a room   what it has above its guarantee
    return             an entry that comes back after it was evicted because L1 was full; its
                       room has evicted at most an eighth of the budget since
    weight of a room   the square of its part of the recent returns of all rooms, which counts as
                       a tenth of an equal part at least

The room gives way whose excess is largest for its weight. So what nobody is guaranteed goes to the
rooms for which a little more memory would be worth most hits. A scan has no returns, however fast
it is: what it reads was never evicted. The square is between two errors. In proportion to returns,
a room of few requests gets more than its entries are worth; all hits together are most where the
returns of all rooms are equal, but a share that seeks this point never rests.

The rule follows Memshare (Cidon et al., USENIX ATC 2017), which guarantees memory to applications
and moves the rest towards those that hit a shadow queue of evicted keys. Here the weights are the
returns themselves, each worth 0.03 % more than the one before it: they forget, and stay
bounded. Returns are seen by puts, so a hit costs nothing.
"""

from array import array
from collections.abc import Sequence

from cachesvc.model.footprint import ENTRY_BYTES
from cachesvc.tiers.l1.room import Room

HORIZON = 8
"""A return counts if its room has evicted at most the budget divided by this since."""
LEAST_PART = 0.1
"""The least part of the returns, in means; a room without returns grows from it."""
GROWTH = 1.0003
"""A return has this many times the weight of the one before."""
LARGEST_STEP = 1e100
LEAST_SLOTS = 64
"""The least hashes that are remembered of a room. All rooms have 16 bytes for each of the
entries that an eighth of the budget has room for, or twice as many."""


class FairShares:
    """The weights of rooms, and the choice among them."""

    def __init__(self, rooms: Sequence[Room], budget: int, max_entries: int) -> None:
        self._budget = budget
        self._max_entries = max_entries
        self._horizon_bytes = budget // HORIZON
        slots = LEAST_SLOTS
        while slots * len(rooms) * HORIZON < budget // ENTRY_BYTES:
            slots *= 2
        self._shares = {room: _Share(slots) for room in rooms}
        self._returns = 0.0
        self._step = 1.0
        self._chosen = rooms[0]
        self._turns = 0

    def came(self, room: Room, key_id: bytes) -> None:
        """Notes that an entry comes into the room that is not there."""
        share = self._shares[room]
        if not share.is_return(hash(key_id), self._horizon_bytes):
            return
        if self._step > LARGEST_STEP:
            for each in self._shares.values():
                each.returns /= self._step
            self._returns /= self._step
            self._step = 1.0
        share.returns += self._step
        self._returns += self._step
        self._step *= GROWTH

    def gave_way(self, room: Room, key_id: bytes, charge: int) -> None:
        """Notes that the room gave up an entry because L1 was full."""
        self._shares[room].gave_up(hash(key_id), charge)

    def can_place(self, room: Room, charge: int) -> bool:
        """True if an entry fits beside what the other rooms are guaranteed and have."""
        others = [other for other in self._shares if other is not room]
        kept = sum(min(other.bytes, other.guaranteed) for other in others)
        kept_entries = sum(min(other.items, other.guaranteed_entries) for other in others)
        return kept + charge <= self._budget and kept_entries < self._max_entries

    def giving_way(self, room: Room, charge: int, *, is_counted: bool) -> Room:
        """Returns the room that gives up an entry, for one of `charge` bytes in `room`.

        It has entries, and more of them than it is guaranteed: in bytes or, with `is_counted`, in number.
        There is such a room if L1 is full and the entry can be placed (`can_place`), because all
        guarantees fit into the budget together.

        A room that was chosen stays so for as many turns as there are rooms, if it may: so the look at all
        rooms costs each eviction the same, however many rooms there are.
        """
        if self._turns:
            self._turns -= 1
            if self._excess(self._chosen, room, charge, is_counted=is_counted) > 0:
                return self._chosen
        self._turns = len(self._shares) - 1
        least = max(self._returns, 1.0) * LEAST_PART / len(self._shares)
        most = 0.0
        for each, share in self._shares.items():
            weight = max(share.returns, least) ** 2
            excess = self._excess(each, room, charge, is_counted=is_counted)
            if excess > most * weight:
                most = excess / weight
                self._chosen = each
        return self._chosen

    @staticmethod
    def _excess(of: Room, room: Room, charge: int, *, is_counted: bool) -> int:
        """The excess of a room, with the entry in `room` counted; 0 if it is empty."""
        if not of.items:
            return 0
        if is_counted:
            return of.items + (of is room) - of.guaranteed_entries
        return of.bytes + (charge if of is room else 0) - of.guaranteed


class _Share:
    """The returns of one room, and the entries that it gave up last.

    They are known by the hashes of their keys. A hash has one slot of a table, and takes it from the
    hash that is there.
    """

    __slots__ = ("_at", "_evicted_bytes", "_gone", "_mask", "returns")

    def __init__(self, slots: int) -> None:
        self.returns = 0.0
        self._mask = slots - 1
        self._gone = array("q", bytes(8 * slots))
        self._at = array("Q", bytes(8 * slots))
        self._evicted_bytes = 0

    def gave_up(self, key_hash: int, charge: int) -> None:
        self._evicted_bytes += charge
        slot = key_hash & self._mask
        self._gone[slot] = key_hash
        self._at[slot] = self._evicted_bytes

    def is_return(self, key_hash: int, horizon_bytes: int) -> bool:
        """True, once, for an entry after which at most `horizon_bytes` were given up."""
        slot = key_hash & self._mask
        if self._gone[slot] != key_hash:
            return False
        self._gone[slot] = 0
        return self._evicted_bytes - self._at[slot] <= horizon_bytes
