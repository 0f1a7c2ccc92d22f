"""`Cache-Status` (RFC 9211): which tiers were asked, the one nearest to the origin first, and what each said."""

from functools import lru_cache

from cachesvc.model.requests import Answer, Step


@lru_cache(maxsize=512)
def trail_text(trail: tuple[Step, ...]) -> str:
    """The members of the tiers passed. There are few different trails, so nearly all are rendered already."""
    return ", ".join(map(_member, trail))


def cache_status(answer: Answer, ttl: int) -> str:
    """`ttl`: seconds of freshness left, negative when stale. The tier that answered stands before those passed on the way."""
    passed = trail_text(answer.trail)
    if answer.entry is None or answer.tier in ("", "origin"):
        return passed
    hit = f"cachesvc-{answer.tier}; hit; ttl={ttl}"
    return f"{hit}, {passed}" if passed else hit


def _member(step: Step) -> str:
    text = f"cachesvc-{step.tier}; fwd={step.reason}"
    if step.collapsed:
        text += "; collapsed"
    if step.stored:
        text += "; stored"
    if step.detail:
        text += f"; detail={step.detail}"
    return text
