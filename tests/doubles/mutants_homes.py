"""Protections in the home cells, and in the code that applies fences there.

They are about leases, fills, and the times that cells issue.
"""

from tests.doubles.edits import InCellScript, InPython
from tests.doubles.mutant import Mutant

MEMORY_CELL = "tests.doubles.memory_cell:MemoryCell."

HOMES: dict[str, Mutant] = {
    "lead-s": Mutant(
        "a home issues `at` by its own clock, without the lead of S",
        (14,),
        (
            InPython(MEMORY_CELL + "_next_fence", "now + self._skew_us", "now"),
            InCellScript(
                "FENCE", "math.max(now + skew, key_fence(id) + 1)", "math.max(now, key_fence(id) + 1)"
            ),
            InCellScript(
                "PUT", "math.max(now + skew, key_fence(id) + 1)", "math.max(now, key_fence(id) + 1)"
            ),
        ),
    ),
    "lead-2s": Mutant(
        "an instance issues `at` by its own clock, without the lead of 2 S",
        (1, 2, 14),
        (InPython("cachesvc.changes.apply:Applier._fallback_at", " + self._lead_us", ""),),
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
            InPython(
                MEMORY_CELL + "_grant", "max(now, fence + 1, (now + self._skew_us + fence) // 2 + 1)", "now"
            ),
            InCellScript("READ", "math.max(now, fence + 1, math.floor((now + skew + fence) / 2) + 1)", "now"),
        ),
    ),
    "broken-at": Mutant(
        "a home vouches for what it held before it was promoted, restarted or restored",
        (12,),
        (
            InPython(
                MEMORY_CELL + "_read",
                "entry is not None and entry.as_of > self._broken_at",
                "entry is not None",
            ),
            InPython(
                "cachesvc.tiers.l3.replies:reply_from",
                """\
        return UNREADABLE if entry is None else Reply(entry, entry.as_of > exact_from)
""",
                """\
        return UNREADABLE if entry is None else Reply(entry, exact=True)
""",
            ),
        ),
    ),
    "markers": Mutant(
        "a home goes on as if nothing had been when its fences were deleted",
        (39,),
        (
            InPython(MEMORY_CELL + "_waits_at", " or not self._is_whole", ""),
            *(
                InCellScript(
                    script,
                    "not (fences[1] and soft[1])",
                    "false",
                )
                for script in ("READ", "FILL", "PUT", "FENCE", "LEASE")
            ),
        ),
    ),
    "issuers": Mutant(
        "a fence that another server of the home's name applied is taken to be in ours",
        (36,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences._is_elsewhere", "cell.issuer not in (0, issuer)", "False"
            ),
        ),
    ),
    "met-at": Mutant(
        "a server vouches for copies from before this instance met it",
        (37,),
        (
            InPython(
                "cachesvc.tiers.l3.issuer:Issuer.exact_from",
                "max(broken_at, self.met_at + 2 * self._skew_us + 1000) if",
                "broken_at if",
            ),
        ),
    ),
    "left-server": Mutant(
        "a reply counts that came from another server than the one that was met last",
        (37,),
        (InPython("cachesvc.tiers.l3.issuer:Issuer.exact_from", " if id_ == self.id else NEVER", ""),),
    ),
    "two-clocks": Mutant(
        "a fence of another server counts with the lead that only leases of its own clock need",
        (38,),
        (InPython("cachesvc.coherence.fences:Fences.merge", "at += lead_us", "pass"),),
    ),
    "sanity-least": Mutant(
        "a home believes an `at` from the far future",
        (24,),
        (
            InPython(MEMORY_CELL + "fence_many", "least = min(least, now + 4 * self._skew_us)\n", "pass\n"),
            InCellScript("FENCE", "math.min(tonumber(ARGV[i + 3]), now + 4 * skew)", "tonumber(ARGV[i + 3])"),
        ),
    ),
    "lease-check": Mutant(
        "L3 takes a fill whatever lease it came under",
        (21, 23),
        (
            InPython(
                MEMORY_CELL + "_fill",
                """\
    if lease is None or lease.token != fill.lease:
        copy = self._copy(key_id, now)
        return FillReply(copy is not None and copy.token == fill.lease and not fenced, fenced)
    del self._leases[key_id]
    if fenced or entry.as_of > lease.as_of:
        return FillReply(stored=False, fenced=fenced)
""",
                """\
    self._leases.pop(key_id, None)
    if fenced:
        return FillReply(stored=False, fenced=fenced)
""",
            ),
            InCellScript(
                "FILL", "local in_force = call('GET', 'l:' .. id) == token", "local in_force = true"
            ),
        ),
    ),
    "lease-in-reach": Mutant(
        "a lease is later than any fence of the key, however far ahead that is",
        (52, 53),
        (
            InPython(MEMORY_CELL + "_grant", "min(as_of, now + self._skew_us + MARGIN_US)", "as_of"),
            InCellScript("READ", "math.min(later, now + skew + 1000)", "later"),
        ),
    ),
    "put-in-time": Mutant(
        "a put that known fences refuse is stored at once, with a time beyond them",
        (45,),
        (
            InPython(MEMORY_CELL + "_put", "if wait_us < MARGIN_US:", "if can_wait:"),
            InCellScript("PUT", "if wait < MARGIN then", "if can_wait then"),
        ),
    ),
    "put-until": Mutant(
        "a put that arrives after its caller has given it up is stored",
        (51,),
        (
            InPython(MEMORY_CELL + "put_on_its_way", "now < given_up_at", "True"),
            InCellScript("PUT", "now >= tonumber(ARGV[items_end + 1])", "false"),
        ),
    ),
    "past-waiting-puts": Mutant(
        "a fence on a tag may be earlier than the value of a put that waits",
        (45,),
        (
            InPython(MEMORY_CELL + "_fence_many_keys", "least = max(least, self._puts_until + 1)", "pass"),
            InCellScript("FENCE", "least = math.max(least, past_waiting_puts())", "least = least"),
        ),
    ),
    "put-fence": Mutant(
        "the fence of a put that waits is not moved up to the time of its value",
        (46,),
        (
            InPython(
                MEMORY_CELL + "_put",
                "self._fence_key(key_id, False, barred_until if can_wait else 0, now)",
                "max(self._fence_key(key_id, False, 0, now), barred_until)",
            ),
            InCellScript(
                "PUT",
                "add_fence('fences', at, id)",
                "add_fence('fences', next_fence(id), id)",
            ),
        ),
    ),
    "release": Mutant(
        "a release ends whatever lease of the key is in force",
        (33,),
        (
            InPython(
                MEMORY_CELL + "_release",
                "self._prolong(key.id, token, now, now)",
                "self._leases.pop(key.id, None) is not None",
            ),
            InCellScript(
                "LEASE",
                "local in_force = call('GET', 'l:' .. id) == token",
                "local in_force = call('GET', 'l:' .. id) == token or life_ms == '0'",
            ),
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
                "local in_force = call('GET', 'l:' .. id) == token",
                "call('SET', 'l:' .. id, token, 'NX')\n  local in_force = true",
            ),
        ),
    ),
    "idempotent-fill": Mutant(
        "a fill does not remember the lease it came under",
        (23,),
        (
            InPython(
                MEMORY_CELL + "_fill",
                "copy is not None and copy.token == fill.lease and not fenced",
                "False",
            ),
            InCellScript("FILL", "elseif filled_under(id, token) then", "elseif false then"),
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
    "activation": Mutant(
        "a cell that a topology may have given partitions goes on as if nothing had been",
        (13,),
        (
            InPython(MEMORY_CELL + "activate", "self.restart()", "pass"),
            InCellScript("ATTACH", "elseif given then", "elseif false then"),
        ),
    ),
    "clock-of-another-home": Mutant(
        "a fence of another placement counts with the lead that only leases of its own clock need",
        (87,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences.merge",
                " or (fence.placement != here and fence.placement)",
                "",
            ),
        ),
    ),
    "fences-before-a-move": Mutant(
        "homes vouch for copies against fences that were merged before the partition moved there",
        (88,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences.move_to",
                "self._lost_until = max(self._lost_until, until)",
                "pass",
            ),
        ),
    ),
    "one-view-of-homes": Mutant(
        "a change that is under way in a move is published under the placement after it",
        (89,),
        (InPython("cachesvc.tiers.l3.homes:Homes.now", "Homes(self._placement, self._cells)", "self"),),
    ),
    "vouched-elsewhere": Mutant(
        "a copy of a former home is answered because that cell has judged it",
        (90,),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_from_former",
                """\
    unvouched = replace(reply, entry=entry, exact=False)
    standing = self._admission.standing_at_home(unvouched, flight.key, flight.namespace, strict=True)
""",
                """\
    standing = self._admission.standing_at_home(reply, flight.key, flight.namespace, strict=False)
""",
            ),
        ),
    ),
    "former-copy-seen": Mutant(
        "a load that may not be kept takes no notice of the copy in the former home",
        (91,),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_from_former",
                '    flight.saw(entry, "l3")\n',
                "",
            ),
        ),
    ),
    "former-home": Mutant(
        "while a partition moves, invalidations are applied in its new home only",
        (13,),
        (InPython("cachesvc.changes.apply:Applier._apply", "if homes.has_former:", "if False:"),),
    ),
}
