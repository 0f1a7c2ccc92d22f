"""The uses of a loaded answer, beyond the read that loaded it.

An origin decides by its headers, and the service by what it could keep. The decision is made once
for each load (`tiers/origin/freshness.py` reads the headers, `paths/load.py` adds what the tiers
said), and travels with the value: from the loader through the flight to every reader, to the HTTP
answer, to `:get` and to near caches.
"""

from msgspec import Struct


class Use(Struct, frozen=True, gc=False):
    """The uses of one loaded answer. The read that loaded it is always answered."""

    keep: bool = True
    """True: tiers, near caches and caches on the way may keep it for its lifetimes."""
    share: bool = True
    """True: readers that joined the load may have it; else each of them loads for itself."""
    directives: str = ""
    """`Cache-Control` of the answer to the caller; empty: the lifetimes of the value."""
    varies: bool = False
    """True: the origin said `Vary: *`, and so does the answer to the caller."""


EVERY_USE = Use()
"""The use of an answer that its origin does not restrict."""
UNKEPT = Use(keep=False, directives="no-store")
"""The use of an answer that no tier here keeps: nobody behind the service may keep it.

A fence refused the fill, the reader said `no-store`, or a tag belongs to another partition. Its
tags are known, so the rule on loaded values judges readers that joined.
"""
