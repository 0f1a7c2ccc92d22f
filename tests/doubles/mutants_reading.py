"""Protections of reads: which copies and loads may be answered, and which may be kept."""

from tests.doubles.edits import InPython
from tests.doubles.mutant import Mutant

UNFENCED = (
    "(self._admission._age(entry, now, soft=False)"
    " if self._admission.is_timely(entry.as_of, {namespace}, now := self._admission.clock.now_us())"
    " else Standing.REFUSED)"
)
"""The text of a check of a copy that looks at neither fences nor floor."""

READING: dict[str, Mutant] = {
    "sketch-l1": Mutant(
        "fences are not looked at for copies that are fresh, in L1 before all",
        (14,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.is_fresh",
                "and fences.admits(entry, key.digest, key.namespace, now)",
                "",
            ),
            InPython(
                "cachesvc.coherence.fences:Fences.fresh",
                "or admits(entry, key_digest, namespace, now_us)",
                "or True",
            ),
        ),
    ),
    "sketch-l2": Mutant(
        "fences are not looked at for copies in L2",
        (20, 63, 77, 85),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_from_l2",
                "self._admission.standing(entry, flight.key, flight.namespace)",
                UNFENCED.format(namespace="flight.namespace"),
            ),
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_look",
                "self._admission.fresh_of(",
                "(lambda entries, *_: list(entries))(",
            ),
        ),
    ),
    "sketch-l3": Mutant(
        "fences are not looked at for copies in L3 that their home cannot vouch for",
        (12,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.standing_at_home",
                "judged or self.fences.admits(entry, key.digest, key.namespace, now)",
                "True",
            ),
        ),
    ),
    "unapplied": Mutant(
        "fences that a home could not apply are not remembered beside its word",
        (19,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences.exact_admits",
                "not self._unapplied or entry.as_of"
                " > self.exact_fence_on(key_digest, entry.tag_digests, namespace)",
                "True",
            ),
        ),
    ),
    "late-fill": Mutant(
        "what was loaded or found is kept in L1 and L2 whether it is admissible or not",
        (3,),
        (
            InPython(
                "cachesvc.paths.near_tiers:NearTiers.may_have",
                "self._admission.standing(entry, key, namespace) not in (Standing.REFUSED, Standing.DEAD)",
                "True",
            ),
        ),
    ),
    "sanity-at": Mutant(
        "an instance believes an `at` from the far future",
        (24,),
        (InPython("cachesvc.coherence.fences:Fences.merge", "at > latest", "False"),),
    ),
    "sanity-as-of": Mutant(
        "an `as_of` from the far future is believed",
        (14,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences.admits",
                "as_of <= self.floor or as_of > now_us + self._ahead_us",
                "as_of <= self.floor",
            ),
            InPython(
                "cachesvc.coherence.fences:Fences.exact_admits",
                "entry.as_of > now_us + self._ahead_us",
                "False",
            ),
        ),
    ),
    "answer-rule": Mutant(
        "a loaded value is answered only if it could be kept",
        (3,),
        (
            InPython(
                "cachesvc.paths.read:Reader._judge_loaded",
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
                "cachesvc.paths.read:Reader._judge_loaded",
                "not self._admission.loaded_since(entry, flight.key, flight.asked, started)",
                "False",
            ),
        ),
    ),
    "older-copies": Mutant(
        "an answer that may not be kept leaves the older copies of its key in use",
        (31, 78),
        (InPython("cachesvc.paths.load:Loads._forget_older", "not self._may_answer_known(flight)", "True"),),
    ),
    "unknown-tags": Mutant(
        "who joins a load is answered with a value whose tags are not known",
        (32,),
        (InPython("cachesvc.paths.read:_is_for_another", "not landing.use.share", "False"),),
    ),
    "flight-forgetting": Mutant(
        "a key's fence neither forgets its flight nor is asked of those who join it",
        (5,),
        (
            InPython("cachesvc.paths.flight:Flights.forget", "flights.pop(digest, None)", "pass"),
            InPython(
                "cachesvc.coherence.admission:Admission.loaded_since", "(key.digest, digest(", "(digest("
            ),
        ),
    ),
    "token": Mutant(
        "a token is not heeded",
        (7, 8),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.token_refuses",
                "return entry.as_of <= at",
                "return False",
            ),
        ),
    ),
    "token-apart": Mutant(
        "the fences of a token are merged into the instance that it comes to",
        (55,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.believed",
                "latest = ",
                """\
from cachesvc.model.fence import Fence
    self.fences.merge([Fence(digest, at) for digest, at in token])
    latest = """,
            ),
        ),
    ),
    "token-time": Mutant(
        "a token is believed whatever time it names",
        (55,),
        (InPython("cachesvc.coherence.admission:Admission.believed", "min(at, latest)", "at"),),
    ),
    "token-lead": Mutant(
        "a token is cut back to the clock of the instance that it comes to",
        (56,),
        (InPython("cachesvc.coherence.admission:Admission.believed", "+ 4 * self.fences.skew_us", ""),),
    ),
    "seen": Mutant(
        "a session remembers the as_of of an answer that no home has confirmed",
        (34,),
        (
            InPython(
                "cachesvc.coherence.fences:Fences.seen_until", "0 if entry.confirmed else", "0 if True else"
            ),
        ),
    ),
    "unconfirmed": Mutant(
        "the as_of of an unconfirmed copy is believed to order it among the key's copies",
        (35,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.token_refuses",
                "at >= 0 and not entry.confirmed",
                "False",
            ),
        ),
    ),
    "token-l3": Mutant(
        "copies in L3 are not held against the reader's token",
        (8,),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_from_l3",
                "if entry and flight.token and",
                "if entry and False and",
            ),
        ),
    ),
    "overtaken-l3": Mutant(
        "the home's word counts although a fence was merged while its reply was on its way",
        (27,),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._land_from_l3",
                "strict = self._is_overtaken(flight, entry)",
                "strict = False",
            ),
        ),
    ),
    "max-lag": Mutant(
        "copies in L1 and L2 are answered however far the feed may be behind",
        (16, 17),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.is_fresh",
                "and self.is_timely(entry.as_of, namespace, now)",
                "",
            ),
            InPython(
                "cachesvc.coherence.admission:Admission.fresh_of",
                "or not self.is_timely(0, namespace, now)",
                "",
            ),
        ),
    ),
    "max-lag-l3": Mutant(
        "copies in L3 are answered however far the feed may be behind",
        (17,),
        (
            InPython(
                "cachesvc.coherence.admission:Admission.standing_at_home",
                " or not self.is_timely(entry.as_of, namespace, now)",
                "",
            ),
        ),
    ),
    "max-lag-loads": Mutant(
        "a running load is joined however long ago it began, and however far the feed may be behind",
        (17,),
        (
            InPython(
                "cachesvc.paths.read:Reader._join_or_make",
                " and self._admission.is_timely(flight.began_us, namespace, now)",
                "",
            ),
            InPython(
                "cachesvc.paths.read:Reader._look_together",
                "self._admission.is_timely(look.began_us, namespace, now)",
                "True",
            ),
        ),
    ),
    "early-at-home": Mutant(
        "an early refresh loads although the home has a newer copy",
        (57,),
        (
            InPython(
                "cachesvc.paths.flight_runner:FlightRunner._not_before",
                "return flight.known.as_of if flight.mode is Mode.EARLY else 0",
                "return 1 << 62 if flight.mode is Mode.EARLY else 0",
            ),
        ),
    ),
    "early-elsewhere": Mutant(
        "the SDK loads early whichever instance says so",
        (58,),
        (
            InPython(
                "cachesvc_client.requests.namespace_requests:NamespaceRequests._heed_spread",
                "got.early = False",
                "pass",
            ),
        ),
    ),
    "sdk-snapshot": Mutant(
        "the SDK calls the loader before it asks for the lease",
        (18,),
        (
            InPython(
                "cachesvc_client.aio.lookaside:LookAside._read_or_load",
                "    got = await self._answer_of(self._leases, wanted)\n",
                """\
    opened = await loader(wanted)

    async def loader(_, opened=opened):
        return opened

    got = await self._answer_of(self._leases, wanted)
""",
            ),
        ),
    ),
    "snapshot-judged": Mutant(
        "every copy of L1 is written into its snapshot",
        (65,),
        (
            InPython(
                "cachesvc.paths.warm_restart:WarmRestart._write_one",
                "self._near_tiers.may_have(key, namespace, entry)",
                "True",
            ),
        ),
    ),
    "snapshot-queues": Mutant(
        "a snapshot of L1 is taken whatever queues it names",
        (66,),
        (
            InPython(
                "cachesvc.paths.warm_restart:WarmRestart._take",
                "reader.header.queues != queues",
                "False",
            ),
        ),
    ),
}
