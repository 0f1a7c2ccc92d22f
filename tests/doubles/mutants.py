"""The protections of COHERENCE.md, each of which can be taken out: what would be left is a cache that is "usually" coherent.

A mutant breaks the traces (COHERENCE-TRACES.md) that it names, which `tests/paths/test_mutants.py` holds it to. The fault drills
run real instances without a protection: `python -m tests.faults.mutant --without NAME serve …`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.doubles.edits import Edit, InCellScript, InPython, InQueueScript, Undo


@dataclass(frozen=True)
class Mutant:
    without: str
    """What is taken out."""
    breaks: tuple[int, ...]
    """The traces that happen then."""
    edits: Sequence[Edit]

    def apply(self) -> Undo:
        """Take it out of this process. Before anything is built: what took hold of a method or a script keeps it."""
        undone = [edit.apply() for edit in self.edits]

        def undo() -> None:
            for put_back in reversed(undone):
                put_back()

        return undo


@contextmanager
def without(name: str) -> Iterator[None]:
    undo = MUTANTS[name].apply()
    try:
        yield
    finally:
        undo()


MEMORY_CELL = "cachesvc.cells.memory:MemoryCell."

MUTANTS: dict[str, Mutant] = {
    # the rule, tier by tier
    "sketch-l1": Mutant(
        "fences are not looked at for copies in L1",
        (7, 14),
        (
            InPython("cachesvc.read:Reader.peek", "not fences.admits(entry, key.digest, namespace, now)", "False"),
            InPython("cachesvc.read:Reader.peek_many", " and admits(entry, key.digest, namespace, now)", ""),
            InPython(
                "cachesvc.read:Reader._from_l1",
                "self._admission.standing(entry, key, namespace)",
                "self._admission._age(entry, self._clock.now_us(), soft=False)",
            ),
        ),
    ),
    "sketch-l2": Mutant(
        "fences are not looked at for copies in L2",
        (20,),
        (
            InPython(
                "cachesvc.pilot:Pilot._land_from_l2",
                "self._admission.standing(entry, flight.key, flight.namespace)",
                "Standing.FRESH",
            ),
        ),
    ),
    "sketch-l3": Mutant(
        "fences are not looked at for copies in L3 that their home cannot vouch for",
        (12,),
        (
            InPython(
                "cachesvc.admission:Admission.standing_at_home",
                "judged or self._fences.admits(entry, key.digest, key.namespace, now)",
                "True",
            ),
        ),
    ),
    "unapplied": Mutant(
        "fences that a home could not apply are not remembered beside its word",
        (19,),
        (
            InPython(
                "cachesvc.fences:Fences.exact_admits",
                "not self._unapplied or entry.as_of > self.exact_fence_on(key_digest, entry.tag_digests, namespace)",
                "True",
            ),
        ),
    ),
    "late-fill": Mutant(
        "what was loaded or found is kept in L1 and L2 whether it is admissible or not",
        (3,),
        (
            InPython(
                "cachesvc.shelf:Shelf.keep",
                "self._admission.standing(entry, key, namespace) in (Standing.REFUSED, Standing.DEAD)",
                "False",
            ),
            InPython(
                "cachesvc.shelf:Shelf.copy",
                "if self._admission.standing(entry, key, namespace) not in (Standing.REFUSED, Standing.DEAD)",
                "",
            ),
        ),
    ),
    # times
    "lead-s": Mutant(
        "a home issues `at` by its own clock, without the lead of S",
        (14,),
        (
            InPython(MEMORY_CELL + "_fence_key", "now + self._skew_us", "now"),
            InCellScript("FENCE", "math.max(now + skew, key_fence(id) + 1)", "math.max(now, key_fence(id) + 1)"),
            InCellScript("PUT", "math.max(now + skew, key_fence(id) + 1)", "math.max(now, key_fence(id) + 1)"),
        ),
    ),
    "lead-2s": Mutant(
        "an instance issues `at` by its own clock, without the lead of 2 S",
        (1, 2, 14),
        (InPython("cachesvc.apply:Applier._fallback_at", " + self._lead_us", ""),),
    ),
    "new-issuer": Mutant(
        "a home that was promoted or restarted issues at once instead of waiting S",
        (1, 2),
        (
            InPython(MEMORY_CELL + "restart", "now + self._skew_us\n", "0\n"),
            InCellScript("READ", "now < tonumber(meta[3])", "false"),
            InCellScript("FILL", "now < tonumber(meta[3])", "false"),
            InCellScript("FENCE", "now < tonumber(meta[3])", "false"),
            InCellScript("PUT", "now < tonumber(meta[3])", "false"),
            InCellScript("LEASE", "now < tonumber(meta[3])", "false"),
        ),
    ),
    "stored-at": Mutant(
        "a lease is not made later than the key's stored fence",
        (15,),
        (
            InPython(MEMORY_CELL + "_grant", "max(now, self._fences.get(key_id, 0) + 1)", "now"),
            InCellScript("READ", "math.max(now, key_fence(id) + 1)", "now"),
        ),
    ),
    "broken-at": Mutant(
        "a home vouches for what it held before it was promoted, restarted or restored",
        (12,),
        (
            InPython(MEMORY_CELL + "_read", "entry is not None and entry.as_of > self._broken_at", "entry is not None"),
            InPython(
                "cachesvc.cells.redis:_reply",
                """\
        return _UNREADABLE if entry is None else Reply(entry, entry.as_of > broken_at)
""",
                """\
        return _UNREADABLE if entry is None else Reply(entry, exact=True)
""",
            ),
        ),
    ),
    "sanity-at": Mutant(
        "an instance believes an `at` from the far future",
        (24,),
        (InPython("cachesvc.fences:Fences.merge", "at > latest", "False"),),
    ),
    "sanity-least": Mutant(
        "a home believes an `at` from the far future",
        (24,),
        (
            InPython(MEMORY_CELL + "fence_many", "least = min(least, now + 4 * self._skew_us)\n", "pass\n"),
            InCellScript("FENCE", "math.min(tonumber(ARGV[i + 3]), now + 4 * skew)", "tonumber(ARGV[i + 3])"),
        ),
    ),
    "sanity-as-of": Mutant(
        "an `as_of` from the far future is believed",
        (14,),
        (
            InPython(
                "cachesvc.fences:Fences.admits", "as_of <= self.floor or as_of > now_us + self._ahead_us", "as_of <= self.floor"
            ),
            InPython("cachesvc.fences:Fences.exact_admits", "entry.as_of > now_us + self._ahead_us", "False"),
        ),
    ),
    # leases and fills
    "lease-check": Mutant(
        "L3 takes a fill whatever lease it came under",
        (21,),
        (
            InPython(
                MEMORY_CELL + "_fill",
                """\
    if lease is None or lease.token != fill.lease:
        copy = self._copy(key_id, now)
        return copy is not None and copy.token == fill.lease and entry.as_of > newest
    del self._leases[key_id]
    if not newest < entry.as_of <= lease.as_of:
        return False
""",
                """\
    self._leases.pop(key_id, None)
    if entry.as_of <= newest:
        return False
""",
            ),
            InCellScript("FILL", "local in_force = call('GET', 'l:' .. id) == token", "local in_force = true"),
        ),
    ),
    "renewal": Mutant(
        "a renewal re-creates a lease that is gone",
        (22,),
        (
            InPython(
                MEMORY_CELL + "_prolong",
                """\
    if lease is None or lease.token != token:
        return False
""",
                """\
    if lease is None:
        lease = self._leases[key_id] = _Lease(token, int(token.partition(":")[2]), expires_at)
""",
            ),
            InCellScript(
                "LEASE",
                "local in_force = call('GET', lease) == ARGV[i + 1]",
                "call('SET', lease, ARGV[i + 1], 'NX')\n  local in_force = true",
            ),
        ),
    ),
    "idempotent-fill": Mutant(
        "a fill does not remember the lease it came under",
        (23,),
        (
            InPython(MEMORY_CELL + "_fill", "copy is not None and copy.token == fill.lease and entry.as_of > newest", "False"),
            InCellScript("FILL", "elseif admissible and filled_under(id, token) then", "elseif false then"),
        ),
    ),
    "not-before": Mutant(
        "the read script does not hear what the reader refuses",
        (19,),
        (
            InPython(MEMORY_CELL + "_read", "as_of <= read.not_before or ", ""),
            InCellScript("READ", "as_of <= not_before or ", ""),
        ),
    ),
    # loads that a fence overtakes
    "answer-rule": Mutant(
        "a loaded value is answered only if it could be kept",
        (3,),
        (
            InPython(
                "cachesvc.read:Reader._judge_loaded",
                "not self._admission.loaded_since(entry, flight.key, flight.asked, started)",
                "self._admission.standing(entry, flight.key, flight.namespace).name == 'REFUSED'",
            ),
        ),
    ),
    "joiner-check": Mutant(
        "who joins a load is answered by it whatever has been merged since its lease",
        (4,),
        (
            InPython(
                "cachesvc.read:Reader._judge_loaded",
                "not self._admission.loaded_since(entry, flight.key, flight.asked, started)",
                "False",
            ),
        ),
    ),
    "flight-forgetting": Mutant(
        "a key's fence neither forgets its flight nor is asked of those who join it",
        (5,),
        (
            InPython("cachesvc.flight:Flights.forget", "flights.pop(digest, None)", "pass"),
            InPython("cachesvc.admission:Admission.loaded_since", "(key.digest, digest(", "(digest("),
        ),
    ),
    "token": Mutant(
        "a token is not heeded",
        (7, 8),
        (InPython("cachesvc.admission:Admission.heed", "return self._fences.merge(news) if news else []", "return []"),),
    ),
    "token-l3": Mutant(
        "copies in L3 are not held against the reader's token",
        (8,),
        (
            InPython("cachesvc.admission:Admission.standing_at_home", "reply.exact and not strict and", "reply.exact and"),
            InPython("cachesvc.pilot:Pilot._land_from_l3", "if reply.exact and not flight.strict else", "if reply.exact else"),
        ),
    ),
    "sdk-snapshot": Mutant(
        "the SDK calls the loader before it asks for the lease",
        (18,),
        (
            InPython(
                "cachesvc_client.lookaside:LookAside.get_or_load",
                "    got = await self._leases.join(key)\n",
                """\
    opened = await loader(key)

    async def loader(_, opened=opened):
        return opened

    got = await self._leases.join(key)
""",
            ),
        ),
    ),
    # streams
    "append-first": Mutant(
        "an invalidation is applied before its change is appended",
        (6,),
        (
            InPython(
                "cachesvc.invalidate:Invalidator.invalidate",
                """\
    id_ = await self.announce(change)
    applied = await self._applier.apply([change])
""",
                """\
    applied = await self._applier.apply([change])
    id_ = await self.announce(change)
""",
            ),
        ),
    ),
    "gap-floor": Mutant(
        "a gap does not raise the floor",
        (9, 12, 25),
        (
            InPython(
                "cachesvc.feed:FenceFeed._meet_gap",
                "self._fences.raise_floor(self._clock.now_us() + self._lead_us, lost=True)",
                "pass",
            ),
        ),
    ),
    "gap-floor-lead": Mutant(
        "a gap raises the floor to the own clock, not 2 S beyond it",
        (9,),
        (InPython("cachesvc.feed:FenceFeed._meet_gap", " + self._lead_us", ""),),
    ),
    "start-floor": Mutant(
        "a new instance has no floor",
        (10, 11),
        (InPython("cachesvc.feed:FenceFeed._open", "self._fences.raise_floor(start.floor)", "pass"),),
    ),
    "start-floor-published": Mutant(
        "the floor of a new instance is the oldest retained `at`, not the time of its publication + 3 S",
        (10,),
        (
            InPython(
                "cachesvc.queues.memory:MemoryFenceStream.open",
                "position[0] * 1000 + 999 + 3 * self._skew_us",
                "min((f.at for f in fence_items.decode(item.fields for item in queue.fences).fences), default=0)",
            ),
        ),
    ),
    "start-floor-lead": Mutant(
        "the floor of a new instance is a time of publication, not 3 S beyond it",
        (10,),
        (
            InPython("cachesvc.queues.memory:MemoryFenceStream.open", " + 999 + 3 * self._skew_us", ""),
            InPython("cachesvc.queues.redis_stream:RedisFenceStream.open", " + 999 + 3 * self._skew_us", ""),
        ),
    ),
    "unread-region": Mutant(
        "a region whose stream was never read does not count as far behind",
        (11,),
        (
            InPython(
                "cachesvc.admission:Admission._timely", "now - self._fences.watermark <= max_lag", "not self._fences.watermark"
            ),
        ),
    ),
    "complete-to": Mutant(
        "a heartbeat says that all is done, whatever is open",
        (16, 17),
        (
            InPython(
                "cachesvc.queues.memory:MemoryChanges.completion", "now if oldest is None else min(oldest[0] * 1000, now)", "now"
            ),
            InQueueScript("completion", "oldest and math.min(tonumber(match(oldest, '^%d+')) * 1000, now) or now", "now"),
        ),
    ),
    "max-lag": Mutant(
        "copies in L1 and L2 are answered however far the feed may be behind",
        (16, 17),
        (
            InPython(
                "cachesvc.read:Reader.peek",
                'not (contract.feed_loss == "serve" or fences.within_lag(entry, now, contract.max_lag))',
                "False",
            ),
            InPython("cachesvc.read:Reader.peek_many", "now - fences.watermark > contract.max_lag", "False"),
            InPython("cachesvc.admission:Admission.standing", " or not self._timely(entry, namespace, now)", ""),
        ),
    ),
    "max-lag-l3": Mutant(
        "copies in L3 are answered however far the feed may be behind",
        (17,),
        (InPython("cachesvc.admission:Admission.standing_at_home", " or not self._timely(entry, namespace, now)", ""),),
    ),
    "position": Mutant(
        "a reader does not look whether the item at its position is still there",
        (9, 12),
        (
            InPython(
                "cachesvc.queues.memory:MemoryFenceStream._has_gap",
                "self._epoch != self._queue.epoch or here == len(items) or items[here].position != self._position",
                "self._epoch != self._queue.epoch",
            ),
            InPython(
                "cachesvc.queues.redis_stream:RedisFenceStream.read",
                """\
    if epoch != self._epoch or not items or items[0][0] != self._position:
        return await self._gap()
    return await self._deliver(items[self._delivered :])
""",
                """\
    if epoch != self._epoch:
        return await self._gap()
    return await self._deliver([item for item in items if not self._delivered or item[0] != self._position])
""",
            ),
        ),
    ),
    "epoch": Mutant(
        "a reader does not look whether the stream is still the same",
        (25,),
        (
            InPython("cachesvc.queues.memory:MemoryFenceStream._has_gap", "self._epoch != self._queue.epoch or ", ""),
            InPython("cachesvc.queues.redis_stream:RedisFenceStream.read", "epoch != self._epoch or ", ""),
        ),
    ),
    "changes-epoch": Mutant(
        "nobody announces that accepted changes may have been lost",
        (25,),
        (InPython("cachesvc.consume:Consumer._meet_epoch", "not completion.announced", "False"),),
    ),
    # moving
    "activation": Mutant(
        "a cell that a topology may have given partitions goes on as if nothing had been",
        (13,),
        (
            InPython(MEMORY_CELL + "activate", "self.restart()", "pass"),
            InCellScript("ATTACH", "meta[1] ~= ARGV[1] or given", "meta[1] ~= ARGV[1]"),
        ),
    ),
    "former-home": Mutant(
        "while a partition moves, invalidations are applied in its new home only",
        (13,),
        (InPython("cachesvc.apply:Applier._apply", "if self._homes.has_former:", "if False:"),),
    ),
    "placement": Mutant(
        "a fence that was applied in other homes than ours is taken to be in ours",
        (26,),
        (InPython("cachesvc.fences:Fences._note_applied", " or fence.placement not in (0, self._placement)", ""),),
    ),
}
