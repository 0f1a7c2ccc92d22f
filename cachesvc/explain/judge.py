from collections.abc import Sequence

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.fences import Fences
from cachesvc.config.topology import Namespace
from cachesvc.explain.answer import Copy, Question
from cachesvc.explain.verdict import RULES
from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import TierError
from cachesvc.model.etag import etag
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l3.contract import CellKeyState, Reply

_FROM_THE_FUTURE = "its as_of, which is in the future: a clock is wrong"


class _Judge:
    """One key's copies, by the rule, as a read that asks `question` would judge them now."""

    def __init__(
        self,
        key: Key,
        namespace: Namespace,
        question: Question,
        fences: Fences,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self._key = key
        self._namespace = namespace
        self._options = question.options
        self._fences = fences
        self._admission = admission
        self._now = clock.now_us()

    def near(self, entry: Lookup) -> Copy:
        """Of L1 or L2."""
        if not isinstance(entry, Entry):
            return _no_copy(entry)
        standing = self._admission.standing(entry, self._key, self._namespace)
        return self._described(entry, standing, [*self._fences_here(entry), *self._always(entry)])

    def at_home(self, home: CellKeyState | TierError) -> Copy:
        if isinstance(home, TierError) or home.entry is None:
            return _no_copy(home if isinstance(home, TierError) else None)
        entry = home.entry
        fenced = entry.as_of <= home.refused_until
        is_exact = entry.as_of > home.broken_at
        reply = Reply(
            None if fenced else entry, exact=is_exact, soft=entry.as_of <= home.stale_until, fenced=fenced
        )
        strict = bool(self._options.token)
        standing = self._admission.standing_at_home(reply, self._key, self._namespace, strict=strict)
        reasons = ["a fence stored at home on its namespace or one of its tags"] if fenced else []
        if not is_exact or strict:
            reasons += self._fences_here(entry)
        elif not self._fences.exact_admits(entry, self._key.digest, self._key.namespace, self._now):
            reasons.append("a fence that the home has not applied, or lost ones")
        return self._described(entry, standing, [*reasons, *self._always(entry)])

    def _described(self, entry: Entry, standing: Standing, reasons: Sequence[str]) -> Copy:
        if self._is_before_token(entry):
            standing, reasons = Standing.REFUSED, ["the token of this read", *reasons]
        return Copy(
            held=True,
            standing=standing.value,
            rule=RULES[standing],
            refused_by=tuple(reasons or [_FROM_THE_FUTURE]) if standing is Standing.REFUSED else (),
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

    def _is_before_token(self, entry: Entry) -> bool:
        """A read would merge what its token names; an explanation changes nothing."""
        targets = (self._key.digest, Target.whole(self._key.namespace).digest, *entry.tag_digests)
        return any(digest in targets and entry.as_of <= at for digest, at in self._options.token)

    def _fences_here(self, entry: Entry) -> list[str]:
        fences, as_of = self._fences, entry.as_of
        reasons = ["the floor"] if as_of <= fences.floor else []
        if as_of <= fences.known(self._key.digest).hard:
            reasons.append("a fence on the key")
        tags = zip(entry.tags, entry.tag_digests, strict=True)
        reasons += [f"a fence on its tag {tag}" for tag, digest in tags if as_of <= fences.known(digest).hard]
        if as_of <= fences.known(Target.whole(self._key.namespace).digest, self._key.namespace).hard:
            reasons.append("a fence on its namespace")
        return reasons

    def _always(self, entry: Entry) -> list[str]:
        """What forbids copies of any tier."""
        bound = self._fences.bound_us(self._now) / SECONDS
        late = not self._admission.is_timely(entry.as_of, self._namespace, self._now)
        return (
            [f"the staleness bound, {bound:.1f} s, above max_lag, {self._namespace.max_lag.seconds:g} s"]
            if late
            else []
        )


def _no_copy(found: TierError | None) -> Copy:
    return Copy(held=False) if found is None else Copy(held=None, unavailable=str(found))
