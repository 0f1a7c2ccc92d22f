"""The copies of a key as an explanation tells of them: standing, and refusals in words."""

from collections.abc import Sequence

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.refusal import Refusal, RefusedBy
from cachesvc.config.topology import Namespace
from cachesvc.explain.answer import Copy, Question
from cachesvc.explain.verdict import RULES
from cachesvc.model.clock import SECONDS
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.model.etag import etag
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l3.contract import CellKeyState, Reply

_BEYOND_HOME = "a fence that the home has not applied (perhaps another server of its name), or lost ones"
_WORDS = {
    RefusedBy.FLOOR: "the floor",
    RefusedBy.FUTURE: "its as_of, which is in the future: a clock is wrong",
    RefusedBy.KEY: "a fence on the key",
    RefusedBy.TAG: "a fence on its tag {tag}",
    RefusedBy.NAMESPACE: "a fence on its namespace",
    RefusedBy.LOST: _BEYOND_HOME,
    RefusedBy.UNAPPLIED: _BEYOND_HOME,
    RefusedBy.HOME: "a fence stored at home on its namespace or one of its tags",
    RefusedBy.STALENESS: "the staleness bound, {bound:.1f} s, above max_lag, {max_lag:g} s",
    RefusedBy.TOKEN: "the token of this read",
}


class _Judge:
    """Judges one key's copies as a read that asks `question` would judge them now.

    Every decision is `Admission`'s; this class puts the refusals into words.
    """

    def __init__(
        self,
        key: Key,
        namespace: Namespace,
        question: Question,
        admission: Admission,
    ) -> None:
        self._key = key
        self._namespace = namespace
        self._options = question.options
        self._admission = admission
        self._now = admission.clock.now_us()

    def near(self, entry: Lookup) -> Copy:
        """The copy of L1 or L2."""
        if not isinstance(entry, Entry):
            return _no_copy(entry)
        standing = self._admission.standing(entry, self._key, self._namespace)
        return self._described(entry, standing, self._admission.refusals(entry, self._key, self._namespace))

    def at_home(self, home: CellKeyState | TierError) -> Copy:
        """The copy in the home cell, as a read would get it from there."""
        if isinstance(home, TierError) or home.entry is None:
            return _no_copy(home if isinstance(home, TierError) else None)
        entry = home.entry
        fenced = entry.as_of <= home.refused_until
        is_exact = entry.as_of > home.exact_from
        reply = Reply(
            None if fenced else entry, exact=is_exact, soft=entry.as_of <= home.stale_until, fenced=fenced
        )
        standing = self._admission.standing_at_home(reply, self._key, self._namespace, strict=False)
        at_home = (Refusal(RefusedBy.HOME),) if fenced else ()
        here = self._admission.refusals_at_home(entry, self._key, self._namespace, exact=is_exact)
        return self._described(entry, standing, (*at_home, *here))

    def _described(self, entry: Entry, standing: Standing, refusals: Sequence[Refusal]) -> Copy:
        if self._admission.token_refuses(entry, self._key, self._admission.believed(self._options.token)):
            standing, refusals = Standing.REFUSED, (Refusal(RefusedBy.TOKEN), *refusals)
        return Copy(
            held=True,
            standing=standing.value,
            rule=RULES[standing],
            refused_by=self._in_words(refusals) if standing is Standing.REFUSED else (),
            suits=self._admission.suits(entry, self._options),
            etag=etag(entry),
            as_of=entry.as_of,
            fresh_until=entry.fresh_until,
            stale_until=entry.fresh_until + entry.stale_for,
            last_resort_until=entry.fresh_until + entry.error_for,
            age_seconds=round((self._now - entry.as_of) / SECONDS, 3),
            ttl_seconds=round((entry.fresh_until - self._now) / SECONDS, 3),
            bytes=len(entry.value),
            content_type=entry.content_type,
            tags=entry.tags,
            negative=entry.negative,
        )

    def _in_words(self, refusals: Sequence[Refusal]) -> tuple[str, ...]:
        bound = self._admission.fences.bound_us(self._now) / SECONDS
        max_lag = self._namespace.max_lag.seconds
        words = (
            _WORDS[refusal.by].format(tag=refusal.tag, bound=bound, max_lag=max_lag) for refusal in refusals
        )
        return tuple(dict.fromkeys(words))


def _no_copy(found: TierError | None) -> Copy:
    return Copy(held=False) if found is None else Copy(held=None, unavailable=str(found))
