"""The identity that a request was sent under."""

from msgspec import Struct


class Caller(Struct, frozen=True, gc=False):
    """A caller whose identity has been proved, or an anonymous one."""

    name: str = ""
    """The name under which the caller is configured; empty for an anonymous one."""
    rated_as: str = ""
    """The name whose rates the caller's requests count for: its own, or that of its issuer."""


ANONYMOUS = Caller()
"""A caller that has shown no identity."""
