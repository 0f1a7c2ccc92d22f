"""The context that a loader is given, and the options that a loader may set."""

from functools import partial
from typing import Any

import pytest
from cachesvc_client.values.context import ABSENT, LoadContext, takes_context
from cachesvc_client.values.lifetimes import Lifetimes


def context(now: float = 0.0) -> LoadContext:
    return LoadContext("a", Lifetimes(ttl=60.0, tags=("t",)), deadline=30.0, clock=lambda: now)


def test_options_that_are_set_replace_the_callers_and_the_others_stay() -> None:
    ctx = context()
    ctx.set_options(ttl="5m", stale=0)
    assert ctx.lifetimes == Lifetimes(300.0, 0.0, None, ("t",))
    ctx.set_options(stale_if_error=1.5, tags=[])
    assert ctx.lifetimes == Lifetimes(300.0, 0.0, 1.5, ())
    with pytest.raises(ValueError, match="ttl: 'soon' is not a duration"):
        ctx.set_options(ttl="soon")


def test_a_loader_sees_the_time_it_has() -> None:
    assert (context(10.0).time_left, context(31.0).time_left) == (20.0, 0.0)
    assert repr(context(10.0)) == "<LoadContext 'a', 20 s left>"


def test_absence_is_something_to_return() -> None:
    assert context().absent() is ABSENT
    assert repr(ABSENT) == "ABSENT"


class Loader:
    def __call__(self, ctx: LoadContext) -> None: ...

    def by_key(self, key: str) -> None: ...

    def by_context(self, ctx: LoadContext) -> None: ...


def extra(db: object, ctx: LoadContext) -> None: ...


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (lambda ctx: None, True),
        (lambda key: None, False),
        (Loader(), True),
        (Loader().by_key, False),
        (Loader().by_context, True),
        (partial(extra, None), True),
        (dict, False),
    ],
)
def test_a_loader_is_told_the_context_if_it_has_a_parameter_of_that_name(loader: Any, told: bool) -> None:
    assert takes_context(loader) is told
