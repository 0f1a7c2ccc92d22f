"""Decides whether a copy may be answered now: one place for every tier, synchronous.

Nothing here awaits, so no fence can be merged between a decision and the use of its result. The
rule is in docs/coherence.md, "The rule".
"""

import random
from collections.abc import Mapping, Sequence
from enum import Enum

from cachesvc.coherence.fences import Fences
from cachesvc.coherence.refusal import Refusal, RefusedBy
from cachesvc.config.topology import Namespace
from cachesvc.model.clock import Clock
from cachesvc.model.digest import digest, namespace_id
from cachesvc.model.entry import Entry, Key, digests_of
from cachesvc.model.fence import TokenPairs
from cachesvc.model.requests import ReadOptions
from cachesvc.tiers.l3.contract import Reply


class Standing(Enum):
    """The use that a copy may be put to now."""

    FRESH = "fresh"
    STALE = "stale"
    """Within its stale-while-revalidate window: answer it and refresh."""
    LAST_RESORT = "last resort"
    """Within its stale-if-error window: answer it if the origin fails."""
    DEAD = "dead"
    REFUSED = "refused"
    """A fence, the floor or the staleness bound forbids the copy."""


class Admission:
    """Judges copies by the fences of one instance and its clock."""

    def __init__(self, fences: Fences, clock: Clock) -> None:
        self.fences = fences
        self.clock = clock

    # copies that no home cell vouches for: those of L1 and L2 ------------------------------------

    def is_fresh(self, entry: Entry, key: Key, namespace: Namespace, now: int) -> bool:
        """True if a plain read may be answered with this copy as fresh, now (µs).

        The hottest path: every read that L1 answers asks this.
        """
        fences = self.fences
        return (
            entry.fresh_until > now
            and fences.admits(entry, key.digest, key.namespace, now)
            and self.is_timely(entry.as_of, namespace, now)
            and not (fences.has_soft and fences.is_soft_fenced(entry, key.digest, key.namespace, now))
        )

    def fresh_of(
        self, entries: Sequence[Entry | None], keys: Sequence[Key], namespace: Namespace, now: int
    ) -> list[Entry | None]:
        """The entries, with None in the place of each that is not fresh (`is_fresh`).

        Costs half of asking `is_fresh` for each: two things that are the same for all keys of a
        namespace are found out once, that there is no soft fence and that the staleness bound
        forbids no copy.
        """
        fences = self.fences
        if fences.has_soft or not self.is_timely(0, namespace, now):
            return [
                entry if entry is not None and self.is_fresh(entry, key, namespace, now) else None
                for entry, key in zip(entries, keys, strict=True)
            ]
        return fences.fresh(entries, digests_of(keys), keys[0].namespace, now) if keys else []

    def standing(self, entry: Entry, key: Key, namespace: Namespace) -> Standing:
        """The standing of a copy from L1 or L2, or of one that its home cell cannot vouch for."""
        now = self.clock.now_us()
        if self.is_fresh(entry, key, namespace, now):
            return Standing.FRESH
        fences = self.fences
        if not fences.admits(entry, key.digest, key.namespace, now) or not self.is_timely(
            entry.as_of, namespace, now
        ):
            return Standing.REFUSED
        return self._age(entry, now, soft=fences.is_soft_fenced(entry, key.digest, key.namespace, now))

    def standing_at_home(self, reply: Reply, key: Key, namespace: Namespace, *, strict: bool) -> Standing:
        """The standing of a copy from L3, which its home cell has judged.

        Sketch and floor are asked only where the home's word does not reach: for a copy that is not
        exact, and for a strict read.
        """
        entry = reply.entry
        if entry is None:
            return Standing.REFUSED if reply.fenced else Standing.DEAD
        now = self.clock.now_us()
        judged = (
            reply.exact and not strict and self.fences.exact_admits(entry, key.digest, key.namespace, now)
        )
        is_admissible = judged or self.fences.admits(entry, key.digest, key.namespace, now)
        if not is_admissible or not self.is_timely(entry.as_of, namespace, now):
            return Standing.REFUSED
        is_behind = self.fences.is_paced_stale if judged else self.fences.is_soft_fenced
        soft = reply.soft or is_behind(entry, key.digest, key.namespace, now)
        return self._age(entry, now, soft=soft)

    def refusals(self, entry: Entry, key: Key, namespace: Namespace) -> tuple[Refusal, ...]:
        """Everything for which `standing` refuses the copy; empty if it does not."""
        now = self.clock.now_us()
        return (
            *self.fences.refusals(entry, key.digest, key.namespace, now),
            *self._lateness(entry, namespace, now),
        )

    def refused_by(self, entry: Entry, key: Key, namespace: Namespace, token: Mapping[int, int]) -> RefusedBy:
        """The first reason for which a copy was refused just now; the token comes first."""
        if token and self.token_refuses(entry, key, token):
            return RefusedBy.TOKEN
        found = self.refusals(entry, key, namespace)
        return found[0].by if found else RefusedBy.HOME

    def refusals_at_home(
        self, entry: Entry, key: Key, namespace: Namespace, *, exact: bool
    ) -> tuple[Refusal, ...]:
        """Everything for which `standing_at_home` refuses a copy that its home cell admits.

        `exact`: the home judged the copy exactly, and the read is not strict.
        """
        if not exact:
            return self.refusals(entry, key, namespace)
        now = self.clock.now_us()
        return (
            *self.fences.exact_refusals(entry, key.digest, key.namespace, now),
            *self._lateness(entry, namespace, now),
        )

    def _lateness(self, entry: Entry, namespace: Namespace, now: int) -> tuple[Refusal, ...]:
        return () if self.is_timely(entry.as_of, namespace, now) else (Refusal(RefusedBy.STALENESS),)

    def suits(self, entry: Entry, options: ReadOptions) -> bool:
        """True if the copy meets what the read asks for beyond the rule.

        That is the request's Cache-Control (RFC 9111, 5.2.1) and `Cachesvc-Max-Lag`.
        """
        if options.no_cache:
            return False
        now = self.clock.now_us()
        remaining = entry.fresh_until - now
        if options.max_age_us is not None and now - entry.as_of > options.max_age_us:
            return False
        if options.max_lag_us is not None and not self.fences.within_lag(entry, now, options.max_lag_us):
            return False
        if remaining >= options.min_fresh_us:
            return True
        if options.max_stale_us is not None:
            return remaining > -options.max_stale_us
        return options.max_age_us is None and options.min_fresh_us == 0

    def believed(self, token: TokenPairs) -> Mapping[int, int]:
        """Returns a read's token as digest → `at` (µs), as far as an honest one can go.

        A time that is more than 4 S ahead of the own clock is cut back to that. What an honest token
        names was there before the read came, so each copy whose load certainly began after that is
        new enough, and such a copy's `as_of` leads this clock by 2 S + 1 ms at most. It is 4 S
        because copies from up to 3 S ahead are admissible: while this clock is wrong, too, no copy
        that was there is let through by the cut.
        """
        latest = self.clock.now_us() + 4 * self.fences.skew_us
        return {digest: min(at, latest) for digest, at in token}

    def token_refuses(self, entry: Entry, key: Key, token: Mapping[int, int]) -> bool:
        """True if a read's token (`believed`: digest → `at`, µs) refuses the copy.

        The token holds for its own read only. Nothing is merged: a caller could refuse other callers'
        copies otherwise. The `as_of` of a copy that its home has not confirmed does not say whether
        the copy is older than one with an earlier `as_of`, which a session may have seen. Such a copy
        must be later than the pair on its key by the longest load and 2 S: then its load began after
        that copy's load had ended.
        """
        at = token.get(key.digest, -1)
        if at >= 0 and not entry.confirmed:
            at += self.fences.longest_load_us + 2 * self.fences.skew_us
        at = max(at, token.get(digest(namespace_id(key.namespace)), -1))
        for tag_digest in entry.tag_digests:
            at = max(at, token.get(tag_digest, -1))
        return entry.as_of <= at

    def not_before(self, key: Key, refused: Entry) -> int:
        """The `not_before` (µs) for the home that vouched for a copy which is refused here.

        That copy, and every copy that the newest fence known here on key, tags and namespace
        forbids, is then a miss at home.
        """
        return max(refused.as_of, self.fences.fence_on(key.digest, refused.tag_digests, key.namespace))

    def loaded_since(self, entry: Entry | None, key: Key, asked: int, started: int) -> bool:
        """The rule on answers: True if a loaded value may be answered to the read.

        It may, if no fence on the value was merged after its lease was asked for and before the
        read began. Both moments are counts of merges (`Fences.merged`).
        """
        if asked >= started:
            return True
        tags = entry.tag_digests if entry is not None else ()
        return not self.fences.merged_between(
            asked, started, (key.digest, digest(namespace_id(key.namespace)), *tags)
        )

    def still_vouched(self, entry: Entry, key: Key, namespace: Namespace, vouched_at: int) -> bool:
        """True if a copy that its home judged exactly is still good.

        No fence on the copy has been merged since `vouched_at` (a count of merges), and the
        staleness bound allows the copy.
        """
        now = self.clock.now_us()
        return (
            self.loaded_since(entry, key, vouched_at, self.fences.merged)
            and self.fences.exact_admits(entry, key.digest, key.namespace, now)
            and self.is_timely(entry.as_of, namespace, now)
        )

    def standing_past(self, entry: Entry, key: Key, namespace: Namespace, vouched_at: int) -> Standing:
        """The standing of a copy that its home judged exactly and that was not answered as fresh.

        It is never `FRESH`: the copy is past its freshness, or behind a soft fence that perhaps only
        its home knows. `vouched_at`: the number of fences merged here when the home was asked.
        """
        if not self.still_vouched(entry, key, namespace, vouched_at):
            return Standing.REFUSED
        return self._age(entry, self.clock.now_us(), soft=True)

    def is_timely(self, as_of: int, namespace: Namespace, now: int) -> bool:
        """True if the staleness bound lets a read of now have what was loaded from `as_of` on.

        While the bound is above the namespace's `max_lag`, only a value younger than that may be
        answered; in a namespace with `feed_loss: serve`, every value may.
        """
        max_lag = namespace.max_lag
        return (
            now - self.fences.watermark <= max_lag or as_of > now - max_lag or namespace.feed_loss == "serve"
        )

    @staticmethod
    def _age(entry: Entry, now: int, *, soft: bool) -> Standing:
        past = now - entry.fresh_until
        if past < 0 and not soft:
            return Standing.FRESH
        if past < entry.stale_for:
            return Standing.STALE
        return Standing.LAST_RESORT if past < entry.error_for else Standing.DEAD


def is_due_early(entry: Entry, now: int, beta: float, rng: random.Random) -> bool:
    """True if an entry is to be refreshed before it expires (XFetch).

    The probability grows as the expiry nears, scaled by what a load costs and by `beta`. Source:
    Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede Prevention, VLDB 2015.
    `-log(U)` is drawn as a standard exponential; beyond ten times the cost of a load the chance is
    below 5e-5 and not worth the draw.
    """
    remaining = entry.fresh_until - now
    scale = entry.load_ms * 1000 * beta
    return remaining < 10 * scale and rng.expovariate(1.0) * scale >= remaining
