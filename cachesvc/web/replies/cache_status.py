"""`Cache-Status` (RFC 9211): a member for each tier that was asked.

The tier nearest to the origin stands first.
"""

from cachesvc.model.memo import memo
from cachesvc.model.requests import Answer, Step


@memo
def trail_text(trail: tuple[Step, ...]) -> str:
    """Returns the members of the tiers that were passed.

    There are few different trails, so nearly all are rendered already.
    """
    return ", ".join(map(_member, trail))


def cache_status(answer: Answer, ttl: int) -> str:
    """Returns the header's value; `ttl` is seconds of freshness left, negative when stale.

    The tier that answered stands before those that were passed on the way.
    """
    passed = trail_text(answer.trail)
    if answer.entry is None or answer.tier in ("", "origin"):
        return passed
    hit = f"cachesvc-{answer.tier}; hit; ttl={ttl}"
    return f"{hit}, {passed}" if passed else hit


def _member(step: Step) -> str:
    text = f"cachesvc-{step.tier}; fwd={step.reason}"
    if step.origin_status:
        text += f"; fwd-status={step.origin_status}"
    if step.collapsed:
        text += "; collapsed"
    if step.stored:
        text += "; stored"
    if step.detail:
        text += f"; detail={step.detail}"
    return text
