"""The followers of a region's fence stream, remembered beyond a loss of the server's list.

A follower is an instance that reads the stream. The server keeps the list of followers, and loses
it with everything else when it comes back empty. An invalidation that waits for every follower
would then find none to wait for, until each of them has met its gap and registered again. So a
follower that was listed under another epoch within the last minute is still answered, at position
`0-0`: before every fence. Within one epoch the server's list is the truth: a follower that is not
in it has signed off, or was silent for too long.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from cachesvc.changes.contract import FollowerPosition

NOWHERE = "0-0"
"""The position of a follower that has merged nothing of a stream, of whatever epoch."""
SILENT_SECONDS = 60.0
"""A follower from another epoch is forgotten this long after its last report."""


class _Heard(Struct, frozen=True):
    """The last report of a follower; `at` in seconds of the loop's clock."""

    at: float
    epoch: str
    follower: FollowerPosition


class Followers:
    """The followers of one region's fence stream, as this instance has last heard of them."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, str, str], _Heard] = {}

    def known(self, listed: Sequence[FollowerPosition], epoch: str, now: float) -> Sequence[FollowerPosition]:
        """Returns `listed` and the followers of the last minute that were lost with their epoch.

        `listed` and `epoch` are one answer of the server, `now` is in seconds of the loop's clock.
        """
        lost = {
            who: heard
            for who, heard in self._heard.items()
            if heard.epoch != epoch and heard.at >= now - SILENT_SECONDS
        }
        present = {
            (follower.region, follower.instance, follower.incarnation): _Heard(
                now - follower.silent_us / 1e6, epoch, follower
            )
            for follower in listed
        }
        self._heard = lost | present
        return [*listed, *(_nowhere(heard, now) for who, heard in lost.items() if who not in present)]


def _nowhere(heard: _Heard, now: float) -> FollowerPosition:
    return replace(heard.follower, position=NOWHERE, silent_us=round((now - heard.at) * 1e6))
