"""Protections on the way from a change to the fences in force.

They are about changes and fences that are lost, late, or not yet applied.
"""

from tests.doubles.edits import InPython, InQueueScript
from tests.doubles.mutant import Mutant

STREAMS: dict[str, Mutant] = {
    "new-sources": Mutant(
        "a namespace that has other `sources` is not announced as changed",
        (84,),
        (
            InPython(
                "cachesvc.paths.new_sources:NewSources.take",
                "self._tasks.spawn(self._announce(), ",
                "(lambda *_: self._pending.clear())(",
            ),
        ),
    ),
    "new-sources-again": Mutant(
        "the announcement of other `sources` is given up when the queue does not take it",
        (84,),
        (InPython("cachesvc.paths.new_sources:NewSources._announce", "continue", "pass"),),
    ),
    "visible-commits": Mutant(
        "a commit is announced before other sessions see it",
        (92,),
        (
            InPython(
                "cachesvc.changes.postgres.reader:_Following._take",
                "await self._until_visible(told)",
                "pass",
            ),
        ),
    ),
    "accept-first": Mutant(
        "a place is confirmed to the database before the queue has what is before it",
        (93,),
        (
            InPython(
                "cachesvc.changes.postgres.reader:_Following._take",
                "    await self._reader.append(told)\n    self._accepted = reached\n",
                "    self._accepted = reached\n    await self._reader.append(told)\n",
            ),
        ),
    ),
    "source-gaps": Mutant(
        "nobody asks whether a slot is as it was left",
        (94,),
        (
            InPython(
                "cachesvc.changes.postgres.reader:Reader._meet",
                "lost or gap_since(",
                "lost or bool() and gap_since(",
            ),
        ),
    ),
    "append-first": Mutant(
        "an invalidation is applied before its change is appended",
        (6,),
        (
            InPython(
                "cachesvc.paths.invalidate:Invalidator.invalidate",
                """\
    id_ = await self._announcer.announce(change)
    audit, state = audit_of([change], options.author, self._instance), "open"
    try:
        with span("cache.apply") as applying:
            applied = await self._applier.apply([change])
            applied.describe(applying, [change])
""",
                """\
    applied = await self._applier.apply([change])
    id_ = await self._announcer.announce(change)
    audit, state = audit_of([change], options.author, self._instance), "open"
    try:
""",
            ),
        ),
    ),
    "complete-to": Mutant(
        "a heartbeat says that all is done, whatever is open",
        (16, 17),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryChanges.completion",
                "now if oldest is None else queue.accepted_at(oldest)",
                "now",
            ),
            InPython(
                "cachesvc.changes.consume:Consumer._complete_to",
                "complete_to = min(complete_to, sent_us)",
                "pass",
            ),
            InQueueScript("completion", "oldest and accepted_at(oldest) or now", "now"),
        ),
    ),
    "changes-count": Mutant(
        "nobody counts the changes that left the stream",
        (40,),
        (
            InPython("tests.doubles.memory_queue_server:MemoryQueue.epoch_of_changes", "self.lost", "0"),
            InQueueScript("completion", "gone - (call('GET', 'changes:closed') or 0)", "0"),
        ),
    ),
    "orphans": Mutant(
        "a change that is neither pending nor undelivered does not count as open, and nobody adopts it",
        (40,),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryChanges.completion",
                "next(iter(queue.changes), None)",
                "next((at for at in queue.changes if at > queue.delivered or at in queue.taken), None)",
            ),
            InPython(
                "tests.doubles.memory_queue_server:MemoryQueue.orphans",
                "position not in self.taken",
                "False",
            ),
            InQueueScript("adopt", "not pending[item[1]] and", "false and"),
        ),
    ),
    "own-change": Mutant(
        "a call's change is taken with it, although another change waits to be taken before it",
        (79,),
        (
            InPython("tests.doubles.memory_queue:MemoryChanges.append", "and not is_waiting", "and True"),
            InQueueScript("append", "and not is_waiting()", "and true"),
        ),
    ),
    "pushed-in-order": Mutant(
        "a follower believes that nothing stands between its position and an item that was pushed",
        (80,),
        (
            InPython(
                "cachesvc.changes.redis.fences:RedisFenceStream._following",
                "push.before == at",
                "True",
            ),
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream._after",
                "self._queue.fences[first : first + self._max_batch]",
                "self._queue.fences[first:][-1:]",
            ),
        ),
    ),
    "met-epoch": Mutant(
        "a look sends a heartbeat, whatever epochs its consumer has met",
        (81,),
        (
            InPython("tests.doubles.memory_queue:_may_beat", "beat.epoch == found.epoch", "True"),
            InPython("tests.doubles.memory_queue:_may_beat", "found.announced", "True"),
            InPython("tests.doubles.memory_queue:_may_beat", "beat.queue == found.queue", "True"),
            InQueueScript(
                "completion", "ARGV[9] == epoch and announced == epoch and ARGV[10] == queue", "true"
            ),
        ),
    ),
    "met-queue": Mutant(
        "a look sends a heartbeat at a queue where its consumer has not looked for rivals",
        (81,),
        (
            InPython("tests.doubles.memory_queue:_may_beat", "beat.queue == found.queue", "True"),
            InQueueScript("completion", "ARGV[10] == queue", "true"),
        ),
    ),
    "clock-of-a-look": Mutant(
        "a look sends a heartbeat, however far the queue's clock is ahead",
        (82,),
        (
            InPython("tests.doubles.memory_queue:_may_beat", "found.now_us <= beat.latest_us", "True"),
            InQueueScript("completion", "now <= tonumber(ARGV[8])", "true"),
        ),
    ),
    "oldest-of-a-look": Mutant(
        "a look sends another time than before of the change that is still the oldest",
        (82,),
        (
            InPython("tests.doubles.memory_queue:_may_beat", "found.oldest == beat.oldest", "False"),
            InQueueScript("completion", "not oldest or oldest ~= ARGV[11]", "true"),
        ),
    ),
    "looks": Mutant(
        "a consumer does not look for what is open while its instance hears heartbeats",
        (83,),
        (
            InPython(
                "cachesvc.changes.consume:Consumer._may_pass_a_look",
                "now - self._looked_at < RECENT * LOOK_SECONDS",
                "True",
            ),
        ),
    ),
    "vouching-server": Mutant(
        "a heartbeat is taken by any server, whatever server's changes it is of",
        (41,),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream._check",
                "epoch != self._queue.epoch_of_changes",
                "False",
            ),
            InQueueScript("vouch", "ARGV[3] ~= epoch_of_changes()", "false"),
        ),
    ),
    "rival-queue": Mutant(
        "a consumer believes its own queue, although others of its region use another one",
        (42,),
        (InPython("cachesvc.changes.rivals:Rivals.check_queue", "self._region in self._queues", "False"),),
    ),
    "rival-suspended": Mutant(
        "a consumer that stood still does not ask anew whether others use another queue",
        (62,),
        (
            InPython(
                "cachesvc.changes.rivals:Rivals.check_queue",
                "asyncio.get_running_loop().time() - self._looked_at > 2 * self._every_seconds",
                "False",
            ),
        ),
    ),
    "rival-notes": Mutant(
        "the notes of queues in all cells wait for the slowest cell, and no heartbeat for a look",
        (64,),
        (
            InPython(
                "cachesvc.changes.rivals:Rivals._ask_all", "timeout=self._every_seconds", "timeout=None"
            ),
            InPython(
                "cachesvc.changes.rivals:Rivals.check_queue",
                "asyncio.get_running_loop().time() - self._looked_at > 2 * self._every_seconds",
                "False",
            ),
        ),
    ),
    "rival-wait": Mutant(
        "a wait does not care for instances that follow another queue",
        (42,),
        (InPython("cachesvc.changes.rivals:Rivals.unheard", "self._region in self._queues", "False"),),
    ),
    "rival-deployment": Mutant(
        "a consumer takes changes of a queue that another deployment uses",
        (43,),
        (
            InPython(
                "cachesvc.changes.rivals:Rivals.check_deployment",
                'one.kind == "deployment" and one.was_first',
                "False",
            ),
        ),
    ),
    "incarnation": Mutant(
        "two instances of one name are one follower",
        (44,),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream.__init__",
                "(*follower, incarnation)",
                '(*follower, "")',
            ),
            InPython(
                "cachesvc.changes.redis.fences:RedisFenceStream.__init__",
                "'/'.join(follower)}#{incarnation}",
                "'/'.join(follower)}#",
            ),
        ),
    ),
    "resumed-epoch": Mutant(
        "a subscriber of the fences resumes from any position, whatever server's stream it is of",
        (49,),
        (
            InPython(
                "cachesvc.changes.broadcast.broadcast:Broadcast._has_all_after",
                "epoch_of(position) == epoch_of(newest)",
                "True",
            ),
        ),
    ),
    "waited-epoch": Mutant(
        "a wait compares the position of a fence with those of followers of another server",
        (50,),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream.followers",
                "epoch_of(of) != mark_of(str(queue.epoch))",
                "False",
            ),
            InPython(
                "cachesvc.changes.redis.fences:RedisFenceStream.followers",
                "epoch_of(of) != mark_of(listing.epoch)",
                "False",
            ),
        ),
    ),
    "retry-where-missing": Mutant(
        "a parked change is applied again in every cell, with a new `at`",
        (29,),
        (
            InPython(
                "cachesvc.changes.apply:Applier.can_retry",
                "parked.placement == self._homes.placement_id",
                "False",
            ),
        ),
    ),
    "retry-first-at": Mutant(
        "a parked change is applied in the cell that missed it with a new `at`",
        (29,),
        (
            InPython(
                "cachesvc.changes.apply:Applier._take",
                "least=at",
                "least=self._fallback_at()",
            ),
        ),
    ),
    "retry-placement": Mutant(
        "a parked change is tried where it was missing, whatever cells are homes by now",
        (30,),
        (
            InPython(
                "cachesvc.changes.apply:Applier.can_retry",
                "parked.placement == self._homes.placement_id",
                "True",
            ),
        ),
    ),
    "applied-everywhere": Mutant(
        "the first cell that takes a parked target ends its unapplied fence",
        (47,),
        (
            InPython(
                "tests.doubles.memory_parking:MemoryParking.settle",
                "if not any(name in others or EVERYTHING in others for others in self.cells.values())",
                "if True",
            ),
            InQueueScript("settle", "not is_parked(name)", "true"),
        ),
    ),
    "parked-again": Mutant(
        "a retry ends whatever is parked of its target by now",
        (48,),
        (
            InPython(
                "tests.doubles.memory_parking:MemoryParking.settle",
                "kept.parked == replace(one, issuers=())",
                "True",
            ),
            InQueueScript("settle", "call('HGET', 'parked:at:' .. cell, name) == text", "true"),
        ),
    ),
    "parked-overflow": Mutant(
        "what is parked beyond the bounds of a cell is dropped",
        (48,),
        (
            InPython(
                "tests.doubles.memory_parking:MemoryParking.park",
                "{EVERYTHING: _Kept(whole, first.number)}",
                "{}",
            ),
            InQueueScript("publish", "call('HSET', ats, '*',", "call('HSET', ats .. ':lost', '*',"),
        ),
    ),
    "queues-of-a-bound": Mutant(
        "a bound of any queue vouches for what a near cache keeps",
        (61,),
        (
            InPython(
                "cachesvc_client.near.near:Near._is_vouched", "and got.queues == self._queues", "and True"
            ),
        ),
    ),
    "replication-id": Mutant(
        "a queue's server is known by its run id alone",
        (60,),
        (
            InPython("tests.doubles.memory_queue_server:MemoryQueue.be_promoted", "self.epoch += 1", "pass"),
            *(
                InQueueScript(script, "run_id .. '.' .. replication_id", "run_id")
                for script in ("completion", "open", "publish", "read", "vouch")
            ),
        ),
    ),
    "paced-overflow": Mutant(
        "paced fences for which a queue has no room are dropped",
        (59,),
        (
            InPython("cachesvc.coherence.fences:Fences._merge_other", "max(self._soft_floor, at)", "0"),
            InPython(
                "tests.doubles.memory_queue_server:MemoryQueue.remember_paced",
                "self.paced[member] = max(until, self.paced.get(member, 0))",
                "pass",
            ),
            InQueueScript(
                "publish", "call('ZADD', 'fences:paced', 'GT',", "call('ZADD', 'fences:lost', 'GT',"
            ),
        ),
    ),
    "changes-epoch": Mutant(
        "nobody announces that accepted changes may have been lost",
        (25,),
        (
            InPython("cachesvc.changes.consume:Consumer._meet_epoch", "not completion.announced", "False"),
            InPython(
                "tests.doubles.memory_queue:MemoryChanges.completion",
                "announced=queue.announced == epoch",
                "announced=True",
            ),
            InPython(
                "cachesvc.changes.redis.changes:_completion_in",
                "announced=text(announced) == epoch",
                "announced=True",
            ),
        ),
    ),
    "gap-floor": Mutant(
        "a gap does not raise the floor",
        (9, 12, 25),
        (
            InPython(
                "cachesvc.changes.feed:FenceFeed._meet_gap",
                "self._fences.raise_floor(self._clock.now_us() + self._lead_us, lost=True)",
                "pass",
            ),
        ),
    ),
    "unreadable-item": Mutant(
        "an item of fences that cannot be read is passed over",
        (54,),
        (InPython("cachesvc.changes.redis.fence_items:decode", "unreadable += 1", "unreadable += 0"),),
    ),
    "cut-fence": Mutant(
        "a fence that was cut back is forgotten beyond the time that it was merged with",
        (28,),
        (InPython("cachesvc.coherence.fences:Fences.merge", "self._note_cut(at)", "pass"),),
    ),
    "cut-span": Mutant(
        "of the fences that were cut back only the latest is remembered",
        (28,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences._note_cut",
                "self._cut_from = min(self._cut_from or at, at)",
                "self._cut_from = max(self._cut_from, at)",
            ),
        ),
    ),
    "gap-loads": Mutant(
        "a gap does not overtake the loads that are running",
        (9,),
        (InPython("cachesvc.coherence.fences:Fences.raise_floor", "self._recent.forget()", "pass"),),
    ),
    "gap-floor-lead": Mutant(
        "a gap raises the floor to the own clock, not 2 S beyond it",
        (9,),
        (InPython("cachesvc.changes.feed:FenceFeed._meet_gap", " + self._lead_us", ""),),
    ),
    "start-floor": Mutant(
        "a new instance has no floor",
        (10, 11),
        (
            InPython(
                "cachesvc.changes.feed:FenceFeed._open", "self._fences.raise_first_floor(start.floor)", "pass"
            ),
        ),
    ),
    "start-floor-published": Mutant(
        "the floor of a new instance is the oldest retained `at`, not the time of its publication + 3 S",
        (10, 11),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream.open",
                "position[0] * 1000 + 999 + 3 * self._skew_us",
                "min((f.at for f in fence_items.decode((0, item.fields) for item in queue.fences).fences),"
                " default=0)",
            ),
            InPython(
                "cachesvc.changes.redis.fences:RedisFenceStream.open",
                "ms * 1000 + 999 + 3 * self._skew_us",
                "min((f.at for f in (await self.deliver((await self._read([self._position, 1]))[1]))"
                ".fences), default=0)",
            ),
        ),
    ),
    "start-floor-lead": Mutant(
        "the floor of a new instance is a time of publication, not 3 S beyond it",
        (10, 11),
        (
            InPython("tests.doubles.memory_queue:MemoryFenceStream.open", " + 999 + 3 * self._skew_us", ""),
            InPython("cachesvc.changes.redis.fences:RedisFenceStream.open", " + 999 + 3 * self._skew_us", ""),
        ),
    ),
    "unread-region": Mutant(
        "a region whose stream was never read does not count as far behind",
        (11,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.is_timely",
                "now - self.fences.watermark <= max_lag",
                "not self.fences.watermark",
            ),
        ),
    ),
    "position": Mutant(
        "a reader does not look whether the item at its position is still there",
        (9, 12),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream._has_gap",
                "self._epoch != self._queue.epoch or here == len(items)"
                " or items[here].position != self._position",
                "self._epoch != self._queue.epoch",
            ),
            InPython(
                "cachesvc.changes.redis.fences:RedisFenceStream._look",
                """\
    if epoch != self._epoch or not items or items[0][0] != self._position:
        return await self._gap()
    return await self.deliver(items[self._delivered :])
""",
                """\
    if epoch != self._epoch:
        return await self._gap()
    return await self.deliver([item for item in items if not self._delivered or item[0] != self._position])
""",
            ),
        ),
    ),
    "epoch": Mutant(
        "a reader does not look whether the stream is still the same",
        (25,),
        (
            InPython(
                "tests.doubles.memory_queue:MemoryFenceStream._has_gap",
                "self._epoch != self._queue.epoch or ",
                "",
            ),
            InPython("cachesvc.changes.redis.fences:RedisFenceStream._look", "epoch != self._epoch or ", ""),
        ),
    ),
    "placement": Mutant(
        "a fence that was applied in other homes than ours is taken to be in ours",
        (26,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences._note_applied",
                " or fence.placement not in (0, self._placement)",
                "",
            ),
        ),
    ),
}
