"""The load: clients that read, write and announce, each with its own seed, on the same few
keys.

Instances merge the tokens of reads like fences. A key that is read with tokens therefore stays
fresh even where the feed fails, which would hide the failure. So sessions, which send tokens,
read only the keys of the first tag; all other keys depend on the feeds.

A put says that its value is current, which is its writer's responsibility. So each client has a key
and a tag of its own, of which it alone makes the writes, one after the other: it invalidates them,
puts, and reads what it has put.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Literal, TypeVar

from msgspec import Struct

from cachesvc.commands.check.history import Announcement
from cachesvc.commands.check.load.announcer import Announcer, Told, Wait
from cachesvc.commands.check.load.instances import Instance, Instances
from cachesvc.commands.check.load.origin import VersionedStore
from cachesvc.commands.check.load.read_recorder import ReadRecorder
from cachesvc.commands.check.load.sessions import Session
from cachesvc.commands.check.settings import CheckSettings

T = TypeVar("T")

SESSION_READS = 50
"""The reads of one session; then it ends, and its tokens are dropped."""
PATIENCE_SECONDS = 1.0
"""How long a client waits for its write to be accepted before it goes on."""
MOST_KEYS_AT_ONCE = 6
ZIPF = 1.0

Act = Literal["session", "read", "api", "event", "tag", "put"]
READS: Mapping[Act, float] = {"session": 0.5, "read": 0.5}
WRITES: Mapping[Act, float] = {"api": 0.40, "event": 0.26, "tag": 0.14, "put": 0.20}
WAITS: Mapping[Wait, float] = {"none": 0.7, "region": 0.2, "global": 0.1}


class Keyspace(Struct, frozen=True):
    """The keys of a run, the hottest first."""

    tags_of: Mapping[str, tuple[str, ...]]
    """The tags of every key, also of those that are put."""
    of_sessions: tuple[str, ...]
    tags: tuple[str, ...]
    of_puts: tuple[str, ...]
    """A key for each client, which it alone writes; its tag has the same text."""

    @classmethod
    def of(cls, settings: CheckSettings) -> "Keyspace":
        """The keys for these settings.

        Key i has the tag with number i modulo the number of tags. Keys with the second tag have
        the last tag too, so that some values have two.
        """
        tags = tuple(f"t{i}-{settings.run_id}" for i in range(settings.tags))
        tags_of = {f"k{i:02}-{settings.run_id}": _tags(i, tags) for i in range(settings.keys)}
        of_sessions = tuple(key for key, found in tags_of.items() if tags[0] in found)
        of_puts = tuple(f"p{i:02}-{settings.run_id}" for i in range(settings.clients))
        return cls({**tags_of, **{key: (key,) for key in of_puts}}, of_sessions, tags, of_puts)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that every client writes."""
        return tuple(key for key in self.tags_of if key not in self.of_puts)

    @property
    def all_keys(self) -> tuple[str, ...]:
        return tuple(self.tags_of)


class Dice:
    """A client's random choices."""

    def __init__(self, random: Random, space: Keyspace, read_share: float, *, with_events: bool) -> None:
        self._random = random
        self._read_share = read_share
        self._with_events = with_events
        self._tags = space.tags
        self._pools = {
            "session": _hot(space.of_sessions),
            "shared": _hot(space.keys),
            "any": _hot(space.all_keys),
        }

    def act(self) -> Act:
        """The next thing to do."""
        act = _drawn(self._random, READS if self._random.random() < self._read_share else WRITES)
        return "api" if act == "event" and not self._with_events else act

    def key(self) -> str:
        """A key to read."""
        return self._keys("any", 1)[0]

    def key_to_write(self) -> str:
        return self._keys("shared", 1)[0]

    def keys(self, pool: Literal["session", "any"]) -> list[str]:
        """Some different keys, mostly hot ones."""
        return self._keys(pool, self._random.randint(1, MOST_KEYS_AT_ONCE))

    def tag(self) -> str:
        return self._random.choice(self._tags)

    def wait(self) -> Wait:
        return _drawn(self._random, WAITS)

    def is_single(self) -> bool:
        return self._random.random() < 0.5

    def one_of(self, instances: Instances) -> Instance:
        return instances.one(self._random)

    def pause(self, mean_seconds: float) -> float:
        """Seconds until the next operation, exponentially distributed."""
        return self._random.expovariate(1 / mean_seconds)

    def _keys(self, pool: str, count: int) -> list[str]:
        keys, weights = self._pools[pool]
        return list(dict.fromkeys(self._random.choices(keys, cum_weights=weights, k=count)))


class Client:
    """One caller: it reads or writes, pauses, and so on until it is told to stop."""

    def __init__(
        self,
        name: str,
        settings: CheckSettings,
        dice: Dice,
        instances: Instances,
        store: VersionedStore,
        recorder: ReadRecorder,
        announcer: Announcer,
        own: str,
    ) -> None:
        """Makes a client that does nothing yet. `own` is the key that it alone puts."""
        self.may_write = True
        self.is_stopping = False
        """Set it to end `run` after the current operation. Cancelling a client instead would leave
        its lease to expire."""
        self._name = name
        self._settings = settings
        self._dice = dice
        self._instances = instances
        self._store = store
        self._recorder = recorder
        self._announcer = announcer
        self._own = own
        self._own_write: asyncio.Task[Announcement] | None = None
        """The last write of the own key; the next one waits until it is accepted."""
        self._sessions = 0
        self._session_reads = 0
        self._session = self._new_session()

    def __repr__(self) -> str:
        return f"<Client {self._name} in {self._session!r}>"

    async def run(self) -> None:
        """Acts until `is_stopping`, at the client's share of the settings' rate."""
        mean_seconds = self._settings.clients / self._settings.rate
        while not self.is_stopping:
            await self._act(self._dice.act())
            await asyncio.sleep(self._dice.pause(mean_seconds))

    async def _act(self, act: Act) -> None:
        if act == "session":
            await self._read_in_session()
        elif act == "read" or self._announcer.is_full or not self.may_write:
            await self._read()
        elif act == "put":
            await self._put()
        elif act == "tag":
            tag = self._dice.tag()
            await self._write(Told("api", self._store.commit(self._store.keys_of(tag)), tag))
        else:
            wait = self._dice.wait() if act == "api" else "none"
            await self._write(Told(act, self._store.commit([self._dice.key_to_write()]), wait=wait))

    async def _read(self) -> None:
        if self._dice.is_single():
            await self._recorder.read_plainly(self._instance(), self._dice.key())
        else:
            await self._recorder.read(self._instance(), self._dice.keys("any"))

    async def _read_in_session(self) -> None:
        if self._session_reads >= SESSION_READS:
            self._session = self._new_session()
        self._session_reads += 1
        await self._recorder.read(self._instance(), self._dice.keys("session"), self._session)

    async def _write(self, told: Told) -> None:
        """Announces a write. The session learns it when it is accepted, if the client still waits
        then."""
        announcing = self._announcer.announce(told)
        await asyncio.wait([announcing], timeout=PATIENCE_SECONDS)
        if announcing.done() and not announcing.cancelled():
            self._session.learn_write(announcing.result())

    async def _put(self) -> None:
        """Puts the own key, half of the time just after it was invalidated, and reads it.

        The instance that took it has it for a plain read; any instance, for a read with its token.
        """
        if self._own_write is not None and not self._own_write.done():
            await self._read()
            return
        if self._dice.is_single():
            tag = self._own if self._dice.is_single() else ""
            if not await self._write_own(Told("api", self._store.commit([self._own]), tag)):
                return
        put = await self._write_own(Told("put", self._store.commit([self._own])))
        if put and put.how == "put":
            taker = next(one for one in self._instances.all if one.name == put.instance)
            await self._recorder.read_plainly(taker, self._own)
            await self._recorder.read(self._instance(), [self._own], self._session)

    async def _write_own(self, told: Told) -> Announcement | None:
        """Announces a write of the own key; None if that is not accepted in time."""
        self._own_write = self._announcer.announce(told)
        await asyncio.wait([self._own_write], timeout=PATIENCE_SECONDS)
        if not self._own_write.done() or self._own_write.cancelled():
            return None
        self._session.learn_write(self._own_write.result())
        return self._own_write.result()

    def _instance(self) -> Instance:
        return self._dice.one_of(self._instances)

    def _new_session(self) -> Session:
        self._sessions += 1
        self._session_reads = 0
        return Session(f"{self._name}.{self._sessions}", self._settings.namespace)


def _tags(i: int, tags: Sequence[str]) -> tuple[str, ...]:
    own = tags[i % len(tags)]
    return tuple(dict.fromkeys((own, tags[-1]))) if i % len(tags) == 1 else (own,)


def _hot(keys: Sequence[str]) -> tuple[Sequence[str], list[float]]:
    """The keys in the order given, with their cumulative Zipf weights."""
    return keys, list(accumulate(1 / rank**ZIPF for rank in range(1, len(keys) + 1)))


def _drawn(random: Random, weights: Mapping[T, float]) -> T:
    return random.choices(list(weights), list(weights.values()))[0]
