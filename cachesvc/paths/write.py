"""The write path: a fill or release under a lease, or a put; L3 first, then L1, then L2.

A put is an invalidation of the key and a fill in one. If fences that are known would refuse its
value now (those of tags and namespaces lead the clocks by 2 S), it is both one after the other: the
home invalidates the key and grants the put a lease, and the value is filled under that lease once
its time has come (docs/coherence.md, "Puts"). A value that L3 refuses goes nowhere else. A
fill from a source that lags is as old as what the source may have shown: its `as_of` is that of the
lease, less the lag. So a fence of that time refuses it, as it does for the loads of this service. A
put is announced, applied, published and merged like any invalidation; that its value is the current
one is the writer's responsibility.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from msgspec.structs import replace

from cachesvc.changes.announce import Announcer
from cachesvc.changes.apply import Applied, Applier
from cachesvc.coherence.fences import Fences
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import MILLISECONDS, SECONDS, Clock
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.errors import RequestError, TierError
from cachesvc.model.fence import TokenPairs
from cachesvc.model.footprint import shared
from cachesvc.model.partition import foreign_tags
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import Draft, Release, Written
from cachesvc.paths.leased_loads import LeasedLoads
from cachesvc.paths.lifetimes import lifetimes
from cachesvc.paths.near_tiers import NearTiers
from cachesvc.paths.read import Reader
from cachesvc.paths.tally import Tally
from cachesvc.paths.unkept import Unkept
from cachesvc.telemetry.ghosts import Came
from cachesvc.tiers.l3.contract import FenceReply, Fill, FillReply, Put, PutReply
from cachesvc.tiers.l3.homes import Homes
from cachesvc.tiers.l3.leases import lease_as_of

LONGEST_LOAD_US = 60 * SECONDS
"""The longest time between the grant of a lease and its fill.

Lifetimes count from no later time: by a clock that is an hour ahead, a value of five seconds would
be fresh for an hour everywhere.
"""


class Writer:
    """Writes of one instance. Any number of calls may run at once."""

    def __init__(
        self,
        *,
        namespaces: Mapping[str, Namespace],
        homes: Homes,
        announcer: Announcer,
        applier: Applier,
        reader: Reader,
        near_tiers: NearTiers,
        fences: Fences,
        clock: Clock,
        rng: random.Random,
        tally: Tally,
        unkept: Unkept,
        leased_loads: LeasedLoads,
    ) -> None:
        self._namespaces = namespaces
        self._homes = homes
        self._announcer = announcer
        self._applier = applier
        self._reader = reader
        self._near_tiers = near_tiers
        self._fences = fences
        self._clock = clock
        self._rng = rng
        self._tally = tally
        self._unkept = unkept
        self._leased_loads = leased_loads
        self._waiting = 0

    def waiting_elsewhere(self) -> int:
        """The number of calls that wait until known fences let their values through."""
        return self._waiting

    async def put(self, key: Key, draft: Draft) -> Written:
        """Stores one value.

        Raises `RequestError`. A voided lease or a failed precondition is an answer (`stored`
        False).
        """
        (written,) = await self.put_many([(key, draft)])
        if written.error is not None:
            raise written.error
        return written

    async def put_many(self, items: Sequence[tuple[Key, Draft]]) -> list[Written]:
        """Stores values of one namespace, in order; each is kept or fails (`error`) by itself.

        A draft with a `release` stores nothing and gives its lease back. So does a fill that is refused
        here: its value could not be kept, whoever tries.

        A put that known fences would refuse now is stored when they let it through, after at most 3 S;
        the others are stored before.

        Cancelled: each item is either stored and announced, or is invalidated, if need be by the region's
        consumers; never half.
        """
        if not items:
            return []
        namespace = self._namespaces[items[0][0].namespace]
        written: list[Written | None] = [_refusal(key, draft) for key, draft in items]
        for _, draft in items:
            if draft.lease:
                self._leased_loads.end(draft.lease)
        releases = [
            i
            for i, (_, draft) in enumerate(items)
            if draft.release or (draft.lease and written[i] is not None)
        ]
        fills = [
            i
            for i, (_, draft) in enumerate(items)
            if written[i] is None and draft.lease and not draft.release
        ]
        puts = [i for i, (_, draft) in enumerate(items) if written[i] is None and not draft.lease]
        if releases:
            await self._release(items, releases, written)
        if fills:
            await self._fill(namespace, items, fills, written)
        if puts:
            await self._put(namespace, items, puts, written)
        return [answer for answer in written if answer is not None]

    # under a lease -------------------------------------------------------------------------------

    async def _fill(
        self,
        namespace: Namespace,
        items: Sequence[tuple[Key, Draft]],
        which: list[int],
        written: list[Written | None],
        *,
        is_load: bool = True,
    ) -> None:
        """Fills under leases. `is_load`: the time since the lease is what the value's load took."""
        fills: list[tuple[int, Fill]] = []
        for i in which:
            key, draft = items[i]
            try:
                as_of = lease_as_of(draft.lease or "")
            except RequestError as error:
                written[i] = Written(stored=False, error=error)
                continue
            took_us = min(max(0, self._clock.now_us() - as_of), LONGEST_LOAD_US) if is_load else 0
            entry = self._entry_of(namespace, key, draft, as_of - draft.source_lag_us, took_us)
            fills.append((i, Fill(key, entry, draft.lease or "")))
        kept = []
        for cell, group in self._homes.group((fill.key, (i, fill)) for i, fill in fills):
            replies = await cell.fill_many([fill for _, fill in group])
            for (i, fill), reply in zip(group, replies, strict=True):
                written[i] = answer = self._filled(namespace, fill, reply)
                if answer.stored:
                    kept.append((fill.key, namespace, fill.entry))
        await self._near_tiers.copy(kept)

    def _filled(self, namespace: Namespace, fill: Fill, reply: FillReply | TierError) -> Written:
        if isinstance(reply, TierError):
            return Written(stored=False, error=_home_down(reply, "nothing was stored"))
        if not reply.stored:
            return Written(stored=False, reason="fenced" if reply.fenced else "lapsed")
        self._unkept.forget(fill.key)
        self._near_tiers.keep(fill.key, namespace, fill.entry)
        self._reader.filled(fill.key, fill.entry)
        return Written(stored=True, entry=fill.entry)

    async def _release(
        self, items: Sequence[tuple[Key, Draft]], which: list[int], written: list[Written | None]
    ) -> None:
        """Gives leases back. An outcome that stands already, the refusal of a fill, stays.

        A key is remembered as unkept only if its lease was in force: a token that no home has granted
        must not take the shelter of its lease from a key.
        """
        held: list[tuple[Key, tuple[int, Draft]]] = []
        for i in which:
            key, draft = items[i]
            try:
                lease_as_of(draft.lease or "")
            except RequestError as error:
                written[i] = written[i] or Written(stored=False, error=error)
                continue
            held.append((key, (i, draft)))
        for cell, group in self._homes.group((key, (key, i, draft)) for key, (i, draft) in held):
            outcomes = await cell.release_many([(key, draft.lease or "") for key, _, draft in group])
            for (key, i, draft), outcome in zip(group, outcomes, strict=True):
                written[i] = written[i] or _released(outcome)
                if outcome is True:
                    self._tally.leases_released += 1
                    self._reader.released(key)
                    if draft.release is not Release.FAILED:
                        self._tally.values_unkept += 1
                        self._unkept.note(key)

    # without one ---------------------------------------------------------------------------------

    async def _put(
        self,
        namespace: Namespace,
        items: Sequence[tuple[Key, Draft]],
        which: list[int],
        written: list[Written | None],
    ) -> None:
        keys = tuple(dict.fromkeys(items[i][0].text for i in which))
        try:
            id_ = await self._announcer.announce(Change(items[which[0]][0].namespace, keys=keys))
        except RequestError as error:
            for i in which:
                written[i] = Written(stored=False, error=error)
            return
        puts = [(i, self._put_of(namespace, *items[i])) for i in which]
        homes = self._homes.now()
        applied = Applied()
        stored: list[tuple[Key, Namespace, Entry]] = []
        moved: list[tuple[Key, FenceReply]] = []
        late: list[tuple[int, PutReply]] = []
        with ExitStack() as unfilled:
            for cell, group in homes.group((put.key, (i, put)) for i, put in puts):
                replies = await cell.put_many([put for _, put in group])
                for (i, put), reply in zip(group, replies, strict=True):
                    written[i] = self._putted(put, reply)
                    if isinstance(reply, TierError):
                        target = Target.key(put.key.namespace, put.key.text)
                        applied.merge(self._applier.fallback(target, homes))
                        continue
                    if reply.at:
                        moved.append((put.key, FenceReply(reply.at, reply.issuer)))
                    if reply.entry is not None:
                        stored.append((put.key, namespace, reply.entry))
                    elif reply.lease:
                        unfilled.callback(cell.release, put.key, reply.lease)
                        late.append((i, reply))
            applied.merge(await self._applier.follow(moved, homes))
            if await self._announced(id_, applied, stored, which, written) and late:
                await self._fill_late(namespace, items, late, written)
                unfilled.pop_all()
        if unannounced := self._announcer.unannounced(id_):
            for i in which:
                if (answer := written[i]) is not None and answer.stored:
                    written[i] = replace(answer, unannounced=unannounced)

    async def _fill_late(
        self,
        namespace: Namespace,
        items: Sequence[tuple[Key, Draft]],
        late: Sequence[tuple[int, PutReply]],
        written: list[Written | None],
    ) -> None:
        """Fills the values of puts that known fences refused, once these let them through.

        At most 3 S later. The keys are invalidated already, and each put holds its key's lease. A fence
        or a put that came since has ended that lease, or refuses the value by the rule: then the put was
        there before it, and counts as stored.
        """
        self._waiting += 1
        try:
            await asyncio.sleep(max(reply.wait_us for _, reply in late) / SECONDS)
        finally:
            self._waiting -= 1
        fills = [(items[i][0], replace(items[i][1], lease=reply.lease)) for i, reply in late]
        answers: list[Written | None] = [None] * len(fills)
        await self._fill(namespace, fills, list(range(len(fills))), answers, is_load=False)
        for (i, reply), (key, _), answer in zip(late, fills, answers, strict=True):
            token = ((key.digest, reply.at),)
            if answer is not None and (answer.stored or answer.reason == "fenced"):
                written[i] = Written(stored=True, entry=answer.entry, token=token)
            else:
                error = answer.error if answer is not None else None
                written[i] = Written(stored=False, error=error or _lapsed(token), token=token)

    async def _announced(
        self,
        id_: str,
        applied: Applied,
        stored: list[tuple[Key, Namespace, Entry]],
        which: list[int],
        written: list[Written | None],
    ) -> bool:
        """Publishes the fences, then keeps the new entries near; True if they are published.

        The fence goes first: the new entry is the only one that it lets through.
        """
        if not applied.fences:
            await self._announcer.forgo(id_)
            return False
        try:
            await self._announcer.publish(
                applied, applied.done(id_, [fence.digest for fence in applied.fences])
            )
        except RequestError as error:
            for i in which:
                if (answer := written[i]) is not None and answer.token:
                    written[i] = Written(stored=False, error=error, token=answer.token)
            return False
        for key, namespace, entry in stored:
            self._unkept.forget(key)
            self._near_tiers.keep(key, namespace, entry, Came.WRITTEN)
            self._reader.filled(key, entry)
        await self._near_tiers.copy(stored)
        return True

    def _put_of(self, namespace: Namespace, key: Key, draft: Draft) -> Put:
        entry = self._entry_of(namespace, key, draft, self._clock.now_us())
        known = self._fences.newest_on(entry, key.digest, key.namespace)
        return Put(key, entry, if_absent=draft.if_absent, if_match=draft.if_match, known=known)

    @staticmethod
    def _putted(put: Put, reply: PutReply | TierError) -> Written:
        if isinstance(reply, TierError):
            return Written(
                stored=False, error=_home_down(reply, "the key was invalidated; the value was not stored")
            )
        if not reply.at:
            return Written(stored=False, reason="precondition", entry=reply.entry)
        token = ((put.key.digest, reply.at),)
        if not reply.stored:
            return Written(stored=False, error=_fenced_ahead(reply.wait_us, token), token=token)
        return Written(stored=True, entry=reply.entry, token=token)

    def _entry_of(self, namespace: Namespace, key: Key, draft: Draft, as_of: int, took_us: int = 0) -> Entry:
        """The entry of a draft; `took_us`: how long its load took, 0 for a value that was written."""
        fresh_until, stale_for, error_for = lifetimes(
            namespace,
            negative=draft.negative,
            ttl_us=draft.ttl_us,
            stale_for_us=draft.stale_for_us,
            error_for_us=draft.error_for_us,
            now=min(self._clock.now_us(), as_of + draft.source_lag_us + LONGEST_LOAD_US),
            rng=self._rng,
        )
        return Entry(
            draft.value,
            as_of,
            fresh_until,
            stale_for,
            error_for,
            took_us // MILLISECONDS,
            content_type=shared(draft.content_type),
            tags=draft.tags,
            tag_digests=tag_digests_of(key.namespace, draft.tags),
            negative=draft.negative,
        )


def _released(outcome: bool | TierError) -> Written:
    if isinstance(outcome, TierError):
        return Written(stored=False, error=_home_down(outcome, "the lease ends with its life"))
    return Written(stored=False, reason="released")


def _refusal(key: Key, draft: Draft) -> Written | None:
    """The refusal of a write that could never be invalidated as asked; None if it may go on.

    The namespace's limits (size of the value, number of tags) are checked where the request is
    read.
    """
    if foreign := foreign_tags(key.text, draft.tags):
        why = (
            f"tag {foreign[0]!r} belongs to another partition than the key: "
            "leave its {…} out, or use the key's"
        )
        return Written(stored=False, error=RequestError(ProblemKind.FOREIGN_TAG, why, field="Cache-Groups"))
    return None


def _fenced_ahead(wait_us: int, token: TokenPairs) -> RequestError:
    why = (
        f"a fence refuses the value for {wait_us / SECONDS:.1f} s more, because a clock was wrong: "
        "the key was invalidated; the value was not stored"
    )
    return RequestError(ProblemKind.FENCED_AHEAD, why, token=token)


def _lapsed(token: TokenPairs) -> RequestError:
    why = (
        "fences refused the value at first, and its lease had ended before its time came: "
        "the key was invalidated; the value was not stored"
    )
    return RequestError(ProblemKind.HOME_UNAVAILABLE, why, token=token)


def _home_down(error: TierError, so: str) -> RequestError:
    why = f"home cell {error.where} could not take it ({error.why}): {so}"
    return RequestError(ProblemKind.HOME_UNAVAILABLE, why)
