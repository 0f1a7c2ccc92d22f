"""All ways of judging a copy agree, however fences, floor, watermark and clock stand."""

from collections.abc import Callable
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.fences import Fences
from cachesvc.coherence.refusal import Refusal, RefusedBy
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Target
from cachesvc.model.digest import digest, namespace_id
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration
from cachesvc.tiers.l3.contract import Reply
from tests.doubles.clocks import ManualClock

S = 10
"""The skew, µs. Times of a world are a few S around its start, so that they meet often."""
THEN = st.integers(-12 * S, 5 * S)
OF_LATE = st.integers(-4 * S, 4 * S)
WITHOUT_COLLISIONS = 1 << 12
"""Slots of a sketch in which none of TARGETS shares both its slots with others."""
KEYS = [Key.of("pages", text) for text in "abc"]
TAGS = ("menu", "footer")
TARGETS = [
    *(Target.key("pages", key.text) for key in KEYS),
    *(Target.tag("pages", tag) for tag in TAGS),
    Target.whole("pages"),
    Target.whole("posts"),
]


class World:
    """One instance's admission; times are µs after the start of the clock."""

    def __init__(self, slots: int, max_lag: int, feed_loss: Literal["bound", "serve"]) -> None:
        self.clock = ManualClock()
        self.start = self.clock.now_us()
        self.fences = Fences(self.clock, S, slots, ("eu",), recent_us=1_000_000, placement=7)
        self.admission = Admission(self.fences, self.clock)
        self.namespace = Namespace(owner="tests", max_lag=Duration(max_lag), feed_loss=feed_loss)

    def __repr__(self) -> str:
        lag, max_lag = self.clock.now_us() - self.fences.watermark, int(self.namespace.max_lag)
        return f"<World [{self.fences!r}, {lag=}, {max_lag=}, feed_loss={self.namespace.feed_loss}]>"

    def is_fresh(self, entry: Entry, key: Key) -> bool:
        """The rule as docs/coherence.md says it, by the shortest code."""
        fences, now, asked = self.fences, self.clock.now_us(), (entry, key.digest, key.namespace)
        is_timely = self.namespace.feed_loss == "serve" or fences.within_lag(
            entry, now, self.namespace.max_lag
        )
        is_soft = fences.is_soft_fenced(*asked, now)
        return fences.admits(*asked, now) and is_timely and not is_soft and now < entry.fresh_until


@st.composite
def fences_of(draw: st.DrawFn, start: int) -> Fence:
    target = draw(st.sampled_from(TARGETS))
    return Fence(
        target.digest,
        start + draw(THEN),
        soft=draw(st.booleans()),
        namespace=target.namespace if not target.text else "",
        unapplied=draw(st.booleans()),
        over=draw(st.sampled_from((0, 0, 0, 8 * S))),
        placement=draw(st.sampled_from((0, 7, 8))),
    )


@st.composite
def worlds(draw: st.DrawFn, *slots: int) -> World:
    world = World(
        draw(st.sampled_from(slots or (2, WITHOUT_COLLISIONS))),
        draw(st.integers(0, 6 * S)),
        draw(st.sampled_from(("bound", "serve"))),
    )
    world.fences.heartbeat("eu", world.start + draw(THEN))
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            world.fences.merge(draw(st.lists(fences_of(world.start), max_size=3)))
        else:
            world.fences.raise_floor(world.start + draw(THEN), lost=draw(st.booleans()))
        world.clock.advance(us=draw(st.integers(0, 4 * S)))
    return world


@st.composite
def entries_of(draw: st.DrawFn, world: World) -> Entry:
    tags = draw(st.sampled_from(((), TAGS[:1], TAGS)))
    return Entry(
        b"v",
        world.start + draw(OF_LATE),
        world.clock.now_us() + draw(st.sampled_from((-2 * S, 0, 1, 5 * S))),
        stale_for=draw(st.sampled_from((0, 5 * S))),
        error_for=draw(st.sampled_from((0, 9 * S))),
        tags=tags,
        tag_digests=tag_digests_of("pages", tags),
    )


@settings(max_examples=400, deadline=None)
@given(worlds(), st.data())
def test_whether_a_copy_is_fresh_is_the_same_for_one_for_many_and_for_its_standing(
    world: World, data: st.DataObject
) -> None:
    held = [data.draw(st.none() | entries_of(world)) for _ in KEYS]
    admission, namespace, now = world.admission, world.namespace, world.clock.now_us()

    def only(is_fresh: Callable[[Entry, Key], bool]) -> list[Entry | None]:
        pairs = zip(held, KEYS, strict=True)
        return [entry if entry is not None and is_fresh(entry, key) else None for entry, key in pairs]

    fresh = only(world.is_fresh)
    assert only(lambda entry, key: admission.is_fresh(entry, key, namespace, now)) == fresh
    assert only(lambda entry, key: admission.standing(entry, key, namespace) is Standing.FRESH) == fresh
    assert admission.fresh_of(held, KEYS, namespace, now) == fresh


@settings(max_examples=400, deadline=None)
@given(worlds(), st.data())
def test_fences_refuse_a_copy_exactly_if_they_can_name_what_refuses_it(
    world: World, data: st.DataObject
) -> None:
    entry, key = data.draw(entries_of(world)), data.draw(st.sampled_from(KEYS))
    fences, asked = world.fences, (entry, key.digest, key.namespace, world.clock.now_us())
    assert fences.admits(*asked) == (not fences.refusals(*asked))
    assert fences.exact_admits(*asked) == (not fences.exact_refusals(*asked))


@settings(max_examples=400, deadline=None)
@given(worlds(), st.data())
def test_a_copy_is_refused_exactly_if_what_refuses_it_can_be_named(world: World, data: st.DataObject) -> None:
    entry, key = data.draw(entries_of(world)), data.draw(st.sampled_from(KEYS))
    exact, strict = data.draw(st.booleans()), data.draw(st.booleans())
    admission, reply = world.admission, Reply(entry, exact=exact)
    near = admission.standing(entry, key, world.namespace)
    at_home = admission.standing_at_home(reply, key, world.namespace, strict=strict)
    named_at_home = admission.refusals_at_home(entry, key, world.namespace, exact=exact and not strict)
    assert (near is Standing.REFUSED) == bool(admission.refusals(entry, key, world.namespace))
    assert (at_home is Standing.REFUSED) == bool(named_at_home)


@settings(max_examples=400, deadline=None)
@given(worlds(WITHOUT_COLLISIONS), st.data())
def test_a_token_refuses_what_its_fences_would_refuse(world: World, data: st.DataObject) -> None:
    entry, key = data.draw(entries_of(world)), data.draw(st.sampled_from(KEYS))
    pairs = st.tuples(
        st.sampled_from([target.digest for target in TARGETS]), THEN.map(lambda us: world.start + us)
    )
    token = tuple(data.draw(st.lists(pairs, max_size=2)))
    is_refused = world.admission.token_refuses(entry, key, dict(sorted(token, key=lambda pair: pair[1])))
    targets = {key.digest, digest(namespace_id(key.namespace)), *entry.tag_digests}
    assert is_refused == any(target in targets and entry.as_of <= at for target, at in token)


def test_a_token_is_heard_by_its_own_read_only() -> None:
    world = World(WITHOUT_COLLISIONS, 2 * S, "bound")
    entry = Entry(b"v", world.clock.now_us(), world.clock.now_us() + S)
    assert world.admission.token_refuses(entry, KEYS[0], {KEYS[0].digest: entry.as_of})
    assert world.admission.standing(entry, KEYS[0], world.namespace) is Standing.FRESH


def test_an_unconfirmed_copy_does_for_a_token_only_if_its_load_began_after_the_loads_of_its_time() -> None:
    world = World(WITHOUT_COLLISIONS, 2 * S, "bound")
    fences, now = world.admission.fences, world.clock.now_us()
    lead = fences.longest_load_us + 2 * fences.skew_us
    for confirmed, earliest in ((True, now + 1), (False, now + lead + 1)):
        for as_of in (earliest - 1, earliest):
            entry = Entry(b"v", as_of, now + S, confirmed=confirmed)
            refused = world.admission.token_refuses(entry, KEYS[0], {KEYS[0].digest: now})
            assert refused == (as_of < earliest)
            # A pair on the namespace is a fence, and never what a session has seen.
            whole = {digest(namespace_id(KEYS[0].namespace)): now}
            assert world.admission.token_refuses(entry, KEYS[0], whole) == (as_of <= now)


def test_a_refusal_names_the_fence() -> None:
    world = World(WITHOUT_COLLISIONS, 2 * S, "bound")
    now, tags = world.clock.now_us(), ("footer", "menu")
    entry = Entry(b"v", now, now + S, tags=tags, tag_digests=tag_digests_of("pages", tags))
    world.fences.heartbeat("eu", now)
    assert world.admission.refusals(entry, KEYS[0], world.namespace) == ()
    whole = Target.whole("pages")
    world.fences.merge([Fence(Target.tag("pages", "menu").digest, now, unapplied=True)])
    assert world.admission.refusals(entry, KEYS[0], world.namespace) == (Refusal(RefusedBy.TAG, "menu"),)
    world.fences.merge([Fence(KEYS[0].digest, now), Fence(whole.digest, now, namespace="pages")])
    world.fences.raise_floor(now, lost=True)
    world.clock.advance(us=3 * S)
    named = world.admission.refusals(entry, KEYS[0], world.namespace)
    at_home = world.admission.refusals_at_home(entry, KEYS[0], world.namespace, exact=True)
    assert [refusal.by.value for refusal in named] == ["floor", "key", "tag", "namespace", "staleness"]
    assert [refusal.by.value for refusal in at_home] == ["lost", "unapplied", "staleness"]
    ahead = Entry(b"v", world.clock.now_us() + 3 * S + 1, now)
    assert world.admission.refusals(ahead, KEYS[0], world.namespace) == (Refusal(RefusedBy.FUTURE),)
