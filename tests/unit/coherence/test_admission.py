"""However fences, floor, watermark and clock stand: the ways of judging a copy agree with one another."""

from collections.abc import Callable
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.coherence.admission import Admission, Standing
from cachesvc.coherence.fences import Fences
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Target
from cachesvc.model.clock import ManualClock
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.fence import Fence
from cachesvc.model.units import Duration

S = 10
"""The skew, µs. All times of a world are a few S around the start of its clock, so that they meet often."""
THEN = st.integers(-12 * S, 5 * S)
OF_LATE = st.integers(-4 * S, 4 * S)
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
def worlds(draw: st.DrawFn) -> World:
    """Few slots make collisions, many leave them out."""
    world = World(
        draw(st.sampled_from((2, 1 << 12))),
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
