"""Fair shares of room that is limited, without a reservation for anybody.

A party (a namespace, or a caller in one) gets a place while it holds at most `PART` times what is
free. One that takes all it can get then holds 7/8 of the whole, and k of them 7/(1+7k) each: so
something is always free for a party that comes anew, and what nobody asks for may be had by one. It
costs one comparison. Where parties have parts in turn (the callers in a namespace), the same holds
for each in what its namespace may still get. Source: Choudhury & Hahne, Dynamic queue length
thresholds for shared-memory packet switches, IEEE/ACM Transactions on Networking 6(2), 1998.
"""

from collections.abc import Iterable

PART = 7
LEFT_FREE = PART + 1
"""One party leaves this part of the whole free."""


def has_place(free: int, held: Iterable[int]) -> bool:
    """True if there is a place for a party.

    `free`: the part of the whole that nobody holds. `held`: what the party's namespace holds, then
    what the party holds in it; what is held by one that has nobody beside it is left out.
    """
    for own in held:
        free = PART * free - own
    return free > 0
