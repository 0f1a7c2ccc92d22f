"""The rules of reading in words: what a read would do now, and why an answer is old.

Nothing here judges a copy or decides a step: `Admission` says whether a copy may be answered,
`next_step` what a read does. Both are the ones that reads use.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from cachesvc.coherence.admission import Standing
from cachesvc.coherence.next_step import Action, CopySeen, Lease, NextStep, WhoLoads, next_step
from cachesvc.config.topology import Namespace
from cachesvc.explain.answer import Copy, Home, Now, Oldest, Seen
from cachesvc.model.requests import PLAIN, ReadOptions

THE_RULE, A_READ = "The rule", "A read"

RULES = {
    Standing.FRESH: "fresh and later than every fence on it: answered",
    Standing.STALE: (
        "past its freshness or softly fenced, within stale-while-revalidate: "
        "answered stale while it is refreshed"
    ),
    Standing.LAST_RESORT: "past its freshness, within stale-if-error: answered only if the origin fails",
    Standing.DEAD: "past every window: not answered",
    Standing.REFUSED: "not later than a fence, the floor or the staleness bound: refused",
}
ANSWERED = (Standing.FRESH.value, Standing.STALE.value)


class Place(NamedTuple):
    """A copy, the place that holds it, and the instance that sees it."""

    name: str
    tier: str
    seen: Seen
    """The view of the instance that sees the copy."""
    copy: Copy


# what one instance would do -----------------------------------------------------------------------


def decide(
    tiers: Mapping[str, Copy],
    home: Home,
    namespace: Namespace,
    *,
    asks_l2: bool,
    overloaded: bool,
    over_budget: bool = False,
    options: ReadOptions = PLAIN,
) -> Now:
    """The step of a read with these options, from `next_step`, in words.

    `asks_l2`: False while reads leave the key's memcached server alone (its breaker is open).
    `over_budget`: True while no load may begin, because the namespace's origin budget is used up.
    """
    step = next_step(
        tuple(_copies(tiers, home, asks_l2=asks_l2)),
        _lease(home),
        _who_loads(namespace, options),
        accepts_stale=options.max_stale_us is not None,
    )
    decision = _in_words(step, tiers, home, namespace, options)
    if overloaded and decision.tier != "l1":
        return replace(
            decision, but="this instance is overloaded: reads that need more than L1 may be answered 503"
        )
    if over_budget and step.action in (Action.LOAD, Action.LOAD_WITHOUT_LEASE, Action.LEASE_TO_CALLER):
        return replace(
            decision,
            but="the namespace's origin budget is used up here: a load that gets no turn in time is answered "
            "with a stale copy, if one may stand in, else with 503 origin-budget",
        )
    return decision


def _copies(tiers: Mapping[str, Copy], home: Home, *, asks_l2: bool) -> Iterator[CopySeen]:
    """The copies that a read gets to see.

    The home does not send a copy that a fence stored there refuses, so a read never sees it.
    """
    for tier, copy in tiers.items():
        fenced_at = max(home.namespace_fence, *(home.tag_fences.get(tag, 0) for tag in copy.tags), 0)
        is_kept_back = (tier == "l2" and not asks_l2) or (tier == "l3" and copy.as_of <= fenced_at)
        if copy.held and not is_kept_back:
            yield CopySeen(tier, Standing(copy.standing), copy.as_of, copy.negative, copy.suits)


def _lease(home: Home) -> Lease:
    if home.unavailable:
        return Lease.UNAVAILABLE
    return Lease.FREE if home.lease is None else Lease.HELD


def _who_loads(namespace: Namespace, options: ReadOptions) -> WhoLoads:
    if options.only_if_cached:
        return WhoLoads.NOBODY
    if namespace.origin is not None:
        return WhoLoads.INSTANCE
    return WhoLoads.CALLER if options.lease else WhoLoads.NOBODY


def _in_words(
    step: NextStep, tiers: Mapping[str, Copy], home: Home, namespace: Namespace, options: ReadOptions
) -> Now:
    if step.copy is not None:
        return _answered(step, step.copy)
    nothing = _why_no_copy(tiers)
    but = (
        f"if the origin fails, it would answer stale from {step.last_resort.tier}" if step.last_resort else ""
    )
    match step.action:
        case Action.WAIT:
            holder = (home.lease and home.lease.holder) or "a holder outside the topology"
            if home.unkept:
                why = f"{nothing}; {holder} holds the lease, but values of the key cannot be kept: no fill comes"
                loads = namespace.origin is not None
                return Now("load from the origin without a lease" if loads else "miss", why, A_READ)
            longest = options.wait_seconds if namespace.origin is None else namespace.lease_wait.seconds
            why = f"{nothing}, and {holder} holds the lease: it waits for that load, {longest:g} s at most"
            return Now("wait for another's load", why, A_READ, but=but)
        case Action.LOAD_WITHOUT_LEASE:
            why = f"{nothing}; its home is out of reach, so nothing is kept there and others may load as well"
            return Now("load from the origin without a lease", why, A_READ, but=but)
        case Action.LOAD:
            return Now("load from the origin", nothing, _section_of(tiers), but=but)
        case Action.LEASE_TO_CALLER:
            return Now("miss", f"{nothing}, and the caller loads, under the lease", _section_of(tiers))
        case _ if options.only_if_cached:
            return Now("miss", f"{nothing}, and the read asks for copies only", _section_of(tiers))
        case _:
            return Now("miss", f"{nothing}, and the caller loads (look-aside)", _section_of(tiers))


def _answered(step: NextStep, copy: CopySeen) -> Now:
    if step.action is Action.ANSWER:
        what = "answer that there is no such value, from" if copy.negative else "answer from"
        return Now(f"{what} {copy.tier}", RULES[Standing.FRESH], THE_RULE, copy.tier)
    but = "the caller gets the lease as well, and loads" if step.action is Action.LEASE_TO_CALLER else ""
    return Now(f"answer stale from {copy.tier}", RULES[copy.standing], A_READ, copy.tier, but)


def _why_no_copy(tiers: Mapping[str, Copy]) -> str:
    refused = [f"{tier}: {', '.join(copy.refused_by)}" for tier, copy in tiers.items() if copy.refused_by]
    if refused:
        return f"no tier holds a copy that may be answered ({'; '.join(refused)})"
    if any(copy.held and not copy.suits for copy in tiers.values()):
        return "no tier holds a copy that meets what the read asks for"
    return (
        "no tier holds a copy that may be answered"
        if any(copy.held for copy in tiers.values())
        else "no tier holds a copy"
    )


def _section_of(tiers: Mapping[str, Copy]) -> str:
    return THE_RULE if any(copy.refused_by for copy in tiers.values()) else A_READ


# all instances together ---------------------------------------------------------------------------


def places(all_seen: Sequence[Seen]) -> Iterator[Place]:
    """Yields every copy once: L1 of each instance, the pool of each region, the home."""
    told: set[str] = set()
    for place in _views(all_seen):
        if place.name not in told:
            told.add(place.name)
            yield place


def _views(all_seen: Sequence[Seen]) -> Iterator[Place]:
    """Yields every copy as each instance judges it.

    Two instances may judge one copy differently, since one has merged fences that the other has not.
    """
    for seen in all_seen:
        for tier, copy in seen.tiers.items():
            if copy.held:
                yield Place(place_name(tier, seen), tier, seen, copy)


def place_name(tier: str, seen: Seen) -> str:
    """The place that a tier is for an instance: its own L1, its region's L2, or L3."""
    if tier == "l1":
        return f"l1 of {seen.name}"
    return f"l2 of {seen.region}" if tier == "l2" else "l3"


def marked(all_seen: Sequence[Seen]) -> list[Seen]:
    """Returns the views with every copy marked that differs from a newer one elsewhere."""
    newest = max(places(all_seen), key=lambda place: place.copy.as_of, default=None)
    if newest is None:
        return list(all_seen)
    return [
        replace(seen, tiers={tier: _mark(copy, newest) for tier, copy in seen.tiers.items()})
        for seen in all_seen
    ]


def _mark(copy: Copy, newest: Place) -> Copy:
    is_old = copy.held and copy.etag != newest.copy.etag and copy.as_of < newest.copy.as_of
    return replace(copy, differs=f"newer at {newest.name}") if is_old else copy


def oldest(all_seen: Sequence[Seen], home: Home) -> Oldest | None:
    """The oldest of the copies that are answered now; None if no copy is.

    `home`: the home cell as an instance saw it that could reach it.
    """
    answered = [place for place in _views(all_seen) if place.copy.standing in ANSWERED and place.copy.suits]
    if not answered:
        return None
    place = min(answered, key=lambda place: place.copy.as_of)
    why = _why_old(place, home, is_split=len(_servers(all_seen)) > 1)
    return Oldest(place.name, place.copy.etag, place.copy.age_seconds, why)


def _servers(all_seen: Sequence[Seen]) -> Mapping[str, Sequence[str]]:
    """The servers that are reached as the key's home, each with the names of the instances."""
    found: dict[str, list[str]] = {}
    for seen in all_seen:
        if seen.home is not None and seen.home.server:
            found.setdefault(seen.home.server, []).append(seen.name)
    return found


def _why_old(place: Place, home: Home, *, is_split: bool) -> str:
    copy, fences = place.copy, place.seen.fences
    bound = f"{fences.staleness_bound_seconds:.1f} s" if fences else "unknown"
    fenced_at = max(
        home.key_fence, home.namespace_fence, *(home.tag_fences.get(tag, 0) for tag in copy.tags), 0
    )
    if fenced_at >= copy.as_of and copy.standing == Standing.FRESH.value and place.tier != "l3":
        return (
            f"its home knows a later fence that {place.seen.name} has not merged yet: "
            f"its staleness bound is {bound}"
        )
    if is_split:
        return (
            "its home is another server to some instances, and the change may have been applied by "
            "another server than the one that this copy's fences are stored in"
        )
    if copy.differs:
        return (
            f"another version is {copy.differs}, and no fence is between them: that change was not announced"
        )
    if copy.standing == Standing.STALE.value:
        why = (
            "a soft or paced fence made it stale"
            if copy.ttl_seconds > 0
            else f"it is {-copy.ttl_seconds:.1f} s past its freshness"
        )
        return f"{why}, and it is answered while it is refreshed"
    return (
        "no fence later than it is known and no newer copy is held: "
        "if the origin has another value by now, its change was not "
        f"announced, or not longer ago than the staleness bound, {bound}"
    )


def verdict(asked: Seen, elsewhere: Sequence[Seen], found: Oldest | None) -> str:
    """The explanation in a few sentences, for the person on call."""
    sentences = [_what_happens(asked)]
    if found is not None:
        age = f"{found.age_seconds:.1f} s old"
        sentences.append(f"The oldest copy that is answered is in {found.where}, {age}: {found.why}.")
    if len(servers := _servers([asked, *elsewhere])) > 1:
        reached = "; ".join(f"{server} from {', '.join(names)}" for server, names in servers.items())
        sentences.append(f"The home's name leads to {len(servers)} servers: {reached}.")
    if others := _others(asked, elsewhere):
        sentences.append(others)
    if silent := [f"{seen.name} ({seen.unavailable})" for seen in elsewhere if seen.unavailable]:
        sentences.append(f"No answer from {', '.join(silent)}.")
    return " ".join(sentences)


def _what_happens(asked: Seen) -> str:
    now = asked.now
    if now is None:
        return f"{asked.name} cannot tell what a read would do."
    but = f" ({now.but})" if now.but else ""
    return f"A read at {asked.name} would {now.a_read_would}: {now.because}{but}."


def _others(asked: Seen, elsewhere: Sequence[Seen]) -> str:
    """The instances whose caller would get something else, in sentences.

    The same version from another tier counts as the same.
    """
    doing: dict[str, list[str]] = {}
    for seen in elsewhere:
        if seen.now is not None and _gets(seen) != _gets(asked):
            doing.setdefault(seen.now.a_read_would, []).append(seen.name)
    return " ".join(f"At {', '.join(names)} it would {would}." for would, names in doing.items())


def _gets(seen: Seen) -> str:
    """The ETag that a caller would get, or in words what happens instead."""
    if seen.now is None:
        return ""
    return seen.tiers[seen.now.tier].etag if seen.now.tier else seen.now.a_read_would
