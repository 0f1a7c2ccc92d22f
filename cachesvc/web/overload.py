"""Overload: requests that would only wait are refused at the door.

The question, asked four times a second: how long do requests stay that need more than a look into
L1? By Little's law that is the number in progress divided by the number done in a second, so
nothing is measured at any request. If they stay longer than `server.max_delay` and the process has
no time left, they wait for this process and not for an origin. For one window that is a burst (a
herd that joins one load); for `PATIENCE` windows it is overload. Then only so many requests are let
in as are done within `max_delay`, found anew in each window by the same law. All others are
answered 503 with `Retry-After`, which costs a small part of serving them. While the process has
time left, for `PATIENCE` windows, twice as many are let in each window. When nobody has been
refused for a second, overload is over. So nobody is refused because an origin is slow, or while the
core has room.

Only what waits for this process counts as its load. A request whose body is still on its way waits
for its caller (`Overload.reading`); a read whose flight polls for another holder's fill, has joined
a load, or has long been at the origin waits for them, and a write whose value a fence refuses for
now waits for the clock (`elsewhere`, asked once per window).
Otherwise 300 callers that wait for one slow lease, or 300 uploads that stall, would look like a
queue here, and a process that is merely busy would refuse the misses of others. All of them still
count for `server.max_in_progress`, because they take memory.

Tried and rejected. (1) How late timers are, or how long a turn of the loop takes: with 700 requests
in progress, and callers gone before they were answered, turns took 15 ms, because the queue stands
in the batches to the tiers; nobody was refused. (2) To let in a tenth more in each window: after a
first wrong guess that takes many seconds to recover. (3) To measure requests from first byte to
answer: fast ones hide slow ones, or a slow origin looks like overload.

**Who is refused is decided by shares.** Under overload the namespaces share what is done in the
last windows, and the callers in a namespace share its part: max-min fair, in the cost of what they
ask for. A caller that asks for no more than its share is within it, and is let in. A caller that
asks for more is of the crowd. As long as anybody is within its share, the crowd fills only a small
queue: what is done in `CROWD_SECONDS`, all requests counted, so that none of the crowd is let in
while enough of the others is there to do. While the process has room that queue is doubled in
each window, since more of the crowd may then wait for far servers. So the others are not refused,
and do not wait behind the crowd. Refusals count as work that is done: a caller whose refusals take
half of the core would otherwise make the shares of the others smaller. If all are the crowd (one
namespace and one caller, say), the bound above holds for all of
them. The shares of `max_in_progress` are in `shares.py`.

The idea is that of "controlled delay" (Nichols & Jacobson, ACM Queue 2012; Maurer, "Fail at Scale",
ACM Queue 2015), with a bound on the requests in progress in place of one on waiting, since this
queue stands in many places and cannot be cut. A plain bound (`server.max_in_progress`) stands
behind it. Max-min fairness: Bertsekas & Gallager, Data Networks, 6.5.2.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import inf

from cachesvc.config.service import Server
from cachesvc.model.caller import ANONYMOUS, Caller
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.telemetry.loops import Loop
from cachesvc.web.shares import LEFT_FREE, has_place

WINDOW_SECONDS = 0.25
PATIENCE = 2
"""So many windows with a long stay, one after the other, are overload."""
BUSY_SHARE = 0.85
"""The process has no time left if the loop's thread ran, or was ready to run, for this
share of the time: requests that wait then wait for this process. Time in which the thread waited
for a core counts, or an instance that others leave half a core would never be overloaded."""
LEAST_USED = 0.25
"""A process that used less of its core is taken to be able to do four times as much."""
ROOM_SHARE = 0.7
"""The process has room for more of the crowd if its loop's thread used a smaller share.

Between this and `BUSY_SHARE` the queue of the crowd stays as it is: a longer one would make the
process do a little more, and the others wait."""
CALM_SECONDS = 1.0
"""Overload is over when nobody has been refused for so long."""
LEAST = 32
"""So many requests are always let in: they are no overload, and they keep the process busy
while it finds out how many fit."""
FORGOTTEN = 0.1
"""A caller that has asked for less than this in the remembered windows is forgotten."""
CROWD_SECONDS = 0.002
"""The crowd fills a queue that is done in this time, while the process has no time left.

One request at least. Others wait behind it; that it is short costs the crowd alone, whose next
request is let in a little later."""
LONGEST_CROWD = 10
"""As soon as the process has no time left, the queue of the crowd is cut to so many times
`CROWD_SECONDS`, and becomes a quarter shorter in each window after that."""
REFUSAL_COST = 0.5
"""The cost of a refusal, where a read of one key costs 1: 0.15 ms of 0.3 ms."""
LANE_REFUSAL_COST = 0.15
"""The cost of a refusal by the fast lane."""
MEMORY = 0.75
"""The part of what was asked and done that counts on in the next window.

One window alone is a small sample."""
KEYS_OF_A_REQUEST = 32
"""A request costs as much as so many further keys of a batch."""


class Reading:
    """Counts the requests whose body is being read, in a `with` block around that."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class Member:
    """One caller in one namespace. A `with` block stands around each of its requests.

    `in_progress` requests are in progress now; `asked` came in this window, and `asks` in the last
    ones, as far as they are remembered.
    """

    __slots__ = ("_overload", "_room", "allowed", "asked", "asks", "in_progress", "is_crowd")

    def __init__(self, overload: "Overload", room: "Room", allowed: float) -> None:
        self._overload = overload
        self._room = room
        self.in_progress = self.asked = 0
        self.asks = 0.0
        self.is_crowd = False
        """True if it asked for more than its share in the last windows."""
        self.allowed = allowed
        """The requests that are its share of one window."""

    def __enter__(self) -> None:
        self._overload.in_progress += 1
        self._room.in_progress += 1
        self._room.entered += 1
        self.in_progress += 1

    def __exit__(self, *_: object) -> None:
        self.in_progress -= 1
        self._room.in_progress -= 1
        self._room.done += 1
        self._overload.left()


class Room:
    """One namespace: its members, and what was done of what they asked for."""

    __slots__ = ("cost", "done", "entered", "in_progress", "keys", "members", "refusals", "work")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.in_progress = self.entered = self.done = self.keys = 0
        self.refusals = 0.0
        """The cost of the refusals of this window."""
        self.cost = 1.0
        """The cost of one of its requests, on average; 1 for a read of one key."""
        self.work = 0.0
        """The cost of what was done in the last windows, as far as they are remembered.

        Refusals are work, too: what one asks for too much leaves the shares of others as they are.
        """

    def asks(self) -> float:
        return sum(member.asks for member in self.members.values())

    def end_window(self) -> None:
        """Adds this window to the last ones.

        Members that have not asked for long and have nothing in progress are forgotten.
        """
        if self.entered:
            self.cost = 1 + self.keys / self.entered / KEYS_OF_A_REQUEST
        self.work = MEMORY * self.work + self.done * self.cost + self.refusals
        self.entered = self.done = self.keys = 0
        self.refusals = 0.0
        for name, member in list(self.members.items()):
            member.asks = MEMORY * member.asks + member.asked
            member.asked = 0
            if member.asks < FORGOTTEN and not member.in_progress:
                del self.members[name]


class Overload:
    """Counts the requests in progress, and refuses those that are too many.

    `start` and `stop` are called once each, on the loop that serves. In between, `with
    overload.admit(namespace, caller):` stands around work that may be refused.
    """

    def __init__(
        self, limits: Server, core_time: Callable[[], float], elsewhere: Callable[[], int] = lambda: 0
    ) -> None:
        """Makes a counter that refuses nothing before `start`.

        `core_time` returns the seconds for which the loop's thread used or awaited a core, `elsewhere` how
        many of the requests in progress wait for something other than this process now.
        """
        self._elsewhere = elsewhere
        self._waiting_elsewhere = 0
        """The answer of `elsewhere` at the end of the last window."""
        self.reading = Reading()
        self._most = limits.max_in_progress
        self._crowded = self._most - self._most // LEFT_FREE
        """Below so many in progress, nobody has more than a share of `max_in_progress`."""
        self._max_delay = limits.max_delay.seconds
        self._core_time = core_time
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._core_before = 0.0
        """When the running window began, on the loop's clock, and the core time then."""
        self.loop = Loop("windows of overload")
        self._long_windows = 0
        self._idle_windows = 0
        """The windows, one after the other, in which the process had time left."""
        self._calm_seconds = 0.0
        self._done = 0
        """The requests of this window that left; `_refused`: those that were refused."""
        self._refused = 0
        self._bound = self._most
        self._crowd_bound = self._most
        """Under overload, the crowd is let in only while fewer than so many wait for this process."""
        self._has_crowd = False
        """True if anybody asked for more than its share in the last windows."""
        self._is_mixed = False
        """True if there was a crowd, and anybody beside it."""
        self._rooms: dict[str, Room] = {}
        self._windows = 0.0
        """The weight of all windows that are remembered; the last one has the weight 1."""
        self._used = 0.0
        """The shares of the core in the remembered windows, added up."""
        self._newcomers = inf
        """The requests in a window that are the share of a caller which has not asked lately."""
        self.is_shedding = False
        self.in_progress = 0
        """The requests that are in progress now."""
        self.shed = 0
        """Requests that were refused since the start."""
        self.shed_by_namespace: dict[str, int] = {}

    def __repr__(self) -> str:
        shedding = f", shedding above {self._bound}" if self.is_shedding else ""
        if self.is_shedding and self._crowd_bound < self._bound:
            shedding += f", the crowd above {self._crowd_bound}"
        return f"<Overload [{self.in_progress} in progress, {self.shed} shed{shedding}]>"

    def start(self) -> None:
        """Begins a window, at whose end the next one begins."""
        self._begin_window()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def admit(self, namespace: str, caller: Caller = ANONYMOUS) -> Member:
        """Lets in a request that has to wait for something, for the `with` block of its member.

        Returns the member. Raises `RequestError` (`overloaded`).
        """
        room = self._rooms.get(namespace)
        if room is None:
            room = self._rooms[namespace] = Room()
        member = room.members.get(caller.name)
        if member is None:
            member = room.members[caller.name] = Member(self, room, self._newcomers)
        member.asked += 1
        if (self.is_shedding and self._is_shed(member)) or (
            self.in_progress >= self._crowded and not self._has_place(room, member)
        ):
            raise self._refuse(namespace, room, REFUSAL_COST)
        return member

    def refusal(self, namespace: str, caller: Caller) -> RequestError | None:
        """Returns the refusal of a request that `admit` would refuse now under overload.

        None, and nothing is counted, for any other: `admit` may be asked.
        """
        room = self._rooms.get(namespace)
        member = None if room is None else room.members.get(caller.name)
        if room is None or member is None or not self.is_shedding or not self._is_shed(member):
            return None
        member.asked += 1
        return self._refuse(namespace, room, LANE_REFUSAL_COST)

    def _refuse(self, namespace: str, room: Room, cost: float) -> RequestError:
        self.shed += 1
        self.shed_by_namespace[namespace] = self.shed_by_namespace.get(namespace, 0) + 1
        self._refused += 1
        room.refusals += cost
        why = "this instance has more to do than it can do in time; the request was not begun"
        return RequestError(ProblemKind.OVERLOADED, why)

    def weigh(self, namespace: str, keys: int) -> None:
        """Notes that a request of the namespace, which is in progress, has so many keys."""
        if (room := self._rooms.get(namespace)) is not None:
            room.keys += keys

    def left(self) -> None:
        """Notes that a request is not in progress any more."""
        self.in_progress -= 1
        self._done += 1

    def _has_place(self, room: Room, member: Member) -> bool:
        """True if the member has less than its share of `max_in_progress`."""
        levels = []
        if len(self._rooms) > 1:
            levels.append(room.in_progress)
        if len(room.members) > 1:
            levels.append(member.in_progress)
        return has_place(self._most - self.in_progress, levels)

    def _is_shed(self, member: Member) -> bool:
        """True if a request of this member is one too many, under overload.

        Who is within its share is refused only if everybody is: then it is not the crowd that is waited
        for, but requests that are not done at all.
        """
        if member.is_crowd or member.asked > member.allowed:
            return self._load() >= min(self._bound, self._crowd_bound)
        return not self._has_crowd and self._load() >= self._bound

    def _begin_window(self) -> None:
        loop = asyncio.get_running_loop()
        with self.loop.step():
            self._began, self._core_before = loop.time(), self._core_time()
        self._timer = loop.call_later(WINDOW_SECONDS, self._turn)

    def _turn(self) -> None:
        """Ends a window and begins the next one, also if the core time cannot be read."""
        with self.loop.step():
            self._end_window()
        self._begin_window()

    def _load(self) -> int:
        """Returns how many requests wait for this process."""
        return self.in_progress - self.reading.count - self._waiting_elsewhere

    def _end_window(self) -> None:
        seconds = asyncio.get_running_loop().time() - self._began
        used = (self._core_time() - self._core_before) / seconds
        is_busy = used >= BUSY_SHARE
        self._idle_windows = 0 if is_busy else self._idle_windows + 1
        in_time = int(self._done / seconds * self._max_delay)
        """The number of requests that are done within `max_delay`."""
        self._waiting_elsewhere = self._elsewhere()
        self._decide(in_time, seconds, is_long=is_busy and self._load() > in_time)
        self._share_out(used)
        self._bound_crowd(int(self._done / seconds * CROWD_SECONDS), used)
        self._done = self._refused = 0

    def _decide(self, in_time: int, seconds: float, *, is_long: bool) -> None:
        self._long_windows = self._long_windows + 1 if is_long else 0
        if self.is_shedding:
            self._adjust(in_time, seconds, is_long)
        elif self._long_windows >= PATIENCE:
            self.is_shedding, self._calm_seconds = True, 0.0
            self._bound = min(self._most, max(LEAST, in_time))

    def _adjust(self, in_time: int, seconds: float, is_long: bool) -> None:
        self._calm_seconds = 0.0 if self._refused else self._calm_seconds + seconds
        if self._refused and self._idle_windows >= PATIENCE:
            # What is let in waits for something else. That few are done says nothing about this process, and
            # with the bound that follows from it, the same few would be done for ever.
            self._bound = min(self._most, 2 * self._bound)
        elif is_long or self._refused:
            # Half to twice as many as before, since one window is a small sample. If nobody was refused,
            # there was room for all: then few were done because few came.
            self._bound = min(self._most, max(LEAST, self._bound // 2, min(in_time, 2 * self._bound)))
        elif self._calm_seconds >= CALM_SECONDS:
            self.is_shedding, self._bound = False, self._most

    # shares -----------------------------------------------------------------------------------------

    def _share_out(self, used: float) -> None:
        """Ends the window of the members: who is the crowd, and how much is a share.

        What can be done is shared out: what was done, over the share of the core that it took.
        """
        self._windows = MEMORY * self._windows + 1
        self._used = MEMORY * self._used + used
        part = min(1.0, max(LEAST_USED, self._used / self._windows))
        for name, room in list(self._rooms.items()):
            room.end_window()
            if not room.members:
                del self._rooms[name]
        rooms = self._rooms.values()
        # Where little was done, or nothing yet, `LEAST` requests are shared out: these are always let in.
        least = LEAST * max((room.cost for room in rooms), default=1.0)
        capacity = max(least, sum(room.work for room in rooms) / part)
        level = fair_level(capacity, (room.asks() * room.cost for room in rooms))
        others = self._has_crowd = False
        for room in rooms:
            own = level / room.cost
            if room.asks() > own:
                own = fair_level(own, (member.asks for member in room.members.values()))
            for member in room.members.values():
                member.is_crowd, member.allowed = member.asks > own, own / self._windows
                self._has_crowd |= member.is_crowd
                others |= not member.is_crowd
        self._newcomers = capacity / (len(rooms) + 1) / self._windows if level < inf else inf
        self._is_mixed = others and self._has_crowd

    def _bound_crowd(self, short: int, used: float) -> None:
        """Finds how many requests there may be when the next one of the crowd is let in.

        `short`: the number that is done within `CROWD_SECONDS`. `used`: the share of a core.
        """
        before = min(self._crowd_bound, self._bound)
        if not (self._is_mixed and self.is_shedding):
            self._crowd_bound = self._most
        elif used < ROOM_SHARE:
            self._crowd_bound = min(self._bound, 2 * before)
        elif used < BUSY_SHARE:
            self._crowd_bound = before
        elif self._crowd_bound == self._most:
            self._crowd_bound = max(1, short)
        else:
            self._crowd_bound = max(1, short, min(before * 3 // 4, LONGEST_CROWD * short))


def fair_level(capacity: float, asks: Iterable[float]) -> float:
    """Returns the max-min fair level: the most that one gets of what it asks for.

    Infinite if the capacity is enough for all.
    """
    left, waiting = capacity, sorted(asks)
    for place, ask in enumerate(waiting):
        equal = left / (len(waiting) - place)
        if ask > equal:
            return equal
        left -= ask
    return inf
