"""A relay: the newest items that this instance has read of a region, for others to follow.

    this instance's feed, after each read ──► take ──► the log: frames in order, bounded in bytes
                                                       └─► each follower, from its own position

A follower is only a place in the log, so a slow one costs no memory. A follower whose place the log
has dropped, whose position it never had, or that is of another epoch, is ended: it reads on from
the queue, and may come back. One that is ahead of the relay waits until the relay is there.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from cachesvc.changes.contract import FenceBatch, Item, epoch_of, position_of
from cachesvc.changes.relay.frames import frame_of

ITEM_OVERHEAD = 300
"""Bytes that an item of the log costs beside its fields and values."""


class _Entry:
    """The items of one read, and their frame once a follower has needed it."""

    __slots__ = ("_frame", "after", "bytes", "items", "last")

    def __init__(self, after: str, last: str, items: Sequence[Item]) -> None:
        self.after = after
        self.last = last
        self.items = items
        self.bytes = sum(
            ITEM_OVERHEAD + sum(map(len, fields)) + sum(map(len, fields.values())) for _, fields in items
        )
        self._frame = b""

    def frame_after(self, position: str) -> bytes | None:
        """Returns the items after the position, which is before the last one.

        None if nothing here has that position.
        """
        if position == self.after:
            self._frame = self._frame or frame_of(position, self.items)
            return self._frame
        id_ = position.partition("@")[0].encode()
        at = next((at for at, (one, _) in enumerate(self.items) if one == id_), None)
        return None if at is None else frame_of(position, self.items[at + 1 :])


class Relay:
    """The newest items of one region's `fences`. Used on the event loop only.

    `begin` and `take` are called by whoever reads the stream, in its order.
    """

    def __init__(self, region: str, most_bytes: int) -> None:
        self.region = region
        self._most_bytes = most_bytes
        self._entries: deque[_Entry] = deque()
        self.bytes = 0
        """The memory of the log, about."""
        self._newest = ""
        """The position after the newest entry."""
        self._news = asyncio.Event()
        self._followers: set[Following] = set()
        self.lost = 0
        """Followers that were ended because the log does not have what follows their position."""

    def __repr__(self) -> str:
        return f"<Relay of {self.region} [{self.followers} followers] at {self._newest or 'no position'}>"

    @property
    def followers(self) -> int:
        """The followers that are connected now."""
        return len(self._followers)

    def begin(self, position: str) -> None:
        """Begins a new log at the position: nothing is known of what was before it."""
        self._entries.clear()
        self.bytes, self._newest = 0, position
        self._wake()

    def take(self, after: str, batch: FenceBatch) -> None:
        """Takes what was read after the position `after`."""
        if not batch.items:
            if batch.gap:
                self.begin(batch.position)
            return
        if after != self._newest:
            self.begin(after)
        entry = _Entry(after, batch.position, batch.items)
        self._entries.append(entry)
        self._newest, self.bytes = batch.position, self.bytes + entry.bytes
        while self.bytes > self._most_bytes and len(self._entries) > 1:
            self.bytes -= self._entries.popleft().bytes
        self._wake()

    def follow(self, position: str) -> "Following":
        """Returns what follows the position; the caller closes it."""
        following = Following(self, position)
        self._followers.add(following)
        return following

    def end(self) -> None:
        """Ends all followers: this instance stops."""
        for following in list(self._followers):
            following.close()

    def next_of(self, following: "Following") -> bytes | None:
        """Returns the next frame of a follower, empty if there is none yet; None if it is lost."""
        position = following.position
        if not self._newest:
            return b""
        if epoch_of(position) != epoch_of(self._newest):
            return None
        if position == self._newest or position_of(position) > position_of(self._newest):
            return b""
        entry = self._entry_after(position)
        frame = entry.frame_after(position) if entry is not None else None
        if entry is not None and frame is not None:
            following.position = entry.last
        return frame

    def _entry_after(self, position: str) -> _Entry | None:
        """Returns the entry with the item that follows the position; None if it was dropped."""
        asked = position_of(position)
        return next(
            (entry for entry in reversed(self._entries) if position_of(entry.after) <= asked),
            None,
        )

    async def news(self) -> None:
        """Waits until there may be something to take."""
        await self._news.wait()

    def leave(self, following: "Following", *, lost: bool) -> None:
        """Takes a follower out that is over; for `Following` alone."""
        if following in self._followers:
            self._followers.discard(following)
            self.lost += lost
            self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news.clear()


class Following:
    """One follower's place in a relay's log. Made by `Relay.follow`; used by one task."""

    def __init__(self, relay: Relay, position: str) -> None:
        self._relay = relay
        self.position = position
        """The position that the follower has everything up to."""
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Following [{'over' if self.is_over else f'from {self.position}'}]>"

    async def next(self) -> bytes:
        """Returns the next frame; empty if this is over. A cancelled call has taken nothing."""
        while not self.is_over:
            frame = self._relay.next_of(self)
            if frame is None:
                self.lose()
            elif frame:
                return frame
            else:
                await self._relay.news()
        return b""

    def close(self) -> None:
        """Ends it; a waiting `next` returns."""
        self.is_over = True
        self._relay.leave(self, lost=False)

    def lose(self) -> None:
        """Ends it because the follower must read on from the queue."""
        self.is_over = True
        self._relay.leave(self, lost=True)
