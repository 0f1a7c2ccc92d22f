"""Reads through instances and records each outcome; fills a miss under the lease it was
granted."""

import asyncio
from collections.abc import Sequence
from random import Random

from cachesvc.commands.check.history import Load, Read
from cachesvc.commands.check.load.instances import Got, GotMany, Instance, InstanceError
from cachesvc.commands.check.load.origin import Note, Now, VersionedStore
from cachesvc.commands.check.load.sessions import Session
from cachesvc.commands.check.load.values import DamagedValueError, decode
from cachesvc.commands.check.settings import CheckSettings


class ReadRecorder:
    """Reads keys and records the outcomes. All clients share one; a failed read is recorded,
    not raised."""

    def __init__(
        self, settings: CheckSettings, store: VersionedStore, random: Random, note: Note, now: Now
    ) -> None:
        self.reads = 0
        """How many keys were read."""
        self.errors = 0
        self.delays = settings.delays
        """The delays of loads that this process makes under a lease."""
        self._deadline_seconds = settings.deadline_seconds
        self._lease_wait = settings.deadline_seconds / 2 if settings.look_aside else None
        self._store = store
        self._random = random
        self._note = note
        self._now = now

    def __repr__(self) -> str:
        return f"<ReadRecorder [{self.reads} reads, {self.errors} errors]>"

    async def read(
        self, instance: Instance, keys: Sequence[str], session: Session | None = None
    ) -> list[Read]:
        """Reads keys in one `:get`. With a session, its tokens are sent, and it learns from the
        answer."""
        token = session.token(keys) if session else ""
        reads = [self._begun(instance, key, session) for key in keys]
        try:
            answer = await instance.get_many(
                keys,
                token=token,
                deadline_seconds=self._deadline_seconds,
                lease_wait_seconds=self._lease_wait,
            )
        except InstanceError as error:
            return self._failed(reads, error)
        done = self._answered(reads, answer)
        if session:
            for read, got in zip(done, answer.results, strict=True):
                session.learn_read(read.key, read.as_of, got.seen)
        await asyncio.gather(
            *(
                self._fill(instance, key, got.lease)
                for key, got in zip(keys, answer.results, strict=True)
                if got.lease
            )
        )
        return done

    async def read_plainly(self, instance: Instance, key: str) -> list[Read]:
        """Reads one key with a GET."""
        reads = [self._begun(instance, key, None)]
        try:
            answer = await instance.get(key, token="", deadline_seconds=self._deadline_seconds)
        except InstanceError as error:
            return self._failed(reads, error)
        return self._answered(reads, answer)

    def _begun(self, instance: Instance, key: str, session: Session | None) -> Read:
        return Read(
            instance.name,
            key,
            self._now(),
            0,
            "",
            session=session.name if session else "",
            token_writes=session.writes(key) if session else (),
            deadline_us=round(self._deadline_seconds * 1e6),
        )

    def _answered(self, reads: Sequence[Read], answer: GotMany) -> list[Read]:
        ended = self._now()
        return [
            self._noted(_read(read, got, ended, answer.lag))
            for read, got in zip(reads, answer.results, strict=True)
        ]

    def _failed(self, reads: Sequence[Read], error: InstanceError) -> list[Read]:
        ended = self._now()
        return [self._noted(_ended(read, ended, "error", reason=error.reason)) for read in reads]

    def _noted(self, read: Read) -> Read:
        self.reads += 1
        self.errors += read.outcome == "error"
        self._note(read)
        return read

    async def _fill(self, instance: Instance, key: str, lease: str) -> None:
        """Loads a value under the lease and writes it back.

        The snapshot is taken after the lease was granted, and a write may come after the
        snapshot.
        """
        started = self._now()
        snapshot = self._store.snapshot(key)
        await asyncio.sleep(self.delays.draw(self._random))
        ended = self._now()
        stored = None
        try:
            stored = await instance.fill(snapshot, lease)
        except InstanceError:
            self.errors += 1  # the value may have been stored all the same
        self._note(Load(key, snapshot.w, started, ended, lease=lease, stored=stored, instance=instance.name))


def _read(begun: Read, got: Got, ended: int, lag: float | None) -> Read:
    if got.outcome == "error":
        return _ended(begun, ended, "error", reason=got.problem.kind if got.problem else "unexplained")
    if got.outcome in ("absent", "miss"):
        return _ended(begun, ended, got.outcome, got=got, lag=lag)
    try:
        return _ended(begun, ended, got.outcome, got=got, lag=lag, w=decode(begun.key, got.value))
    except DamagedValueError:
        return _ended(begun, ended, got.outcome, got=got, lag=lag, reason="foreign")


def _ended(
    begun: Read,
    ended: int,
    outcome: str,
    *,
    got: Got | None = None,
    lag: float | None = None,
    w: int | None = None,
    reason: str = "",
) -> Read:
    return Read(
        begun.instance,
        begun.key,
        begun.started,
        ended,
        outcome,
        w,
        got.tier if got else "",
        got.as_of if got else 0,
        lag,
        begun.session,
        begun.token_writes,
        begun.deadline_us,
        reason,
    )
