"""Why is this value old, or missing? Everything that decides about one key, asked of the live system; nothing is changed.

The verdict is computed by the same `Admission` that reads use, so it cannot disagree with what a read would do now.
"""

from collections.abc import Callable, Mapping

from cachesvc.admission import Admission, Standing
from cachesvc.clock import Clock
from cachesvc.errors import TierError
from cachesvc.etag import etag
from cachesvc.fences import Fences
from cachesvc.homes import Homes
from cachesvc.interfaces import CellKeyState, Reply, Tier
from cachesvc.lru import L1
from cachesvc.model import Entry, Key
from cachesvc.placement import partition
from cachesvc.topology import Namespace, Topology

RULES = {
    Standing.FRESH: "fresh and later than every fence on it: answered",
    Standing.STALE: "past its freshness, within stale-while-revalidate: answered stale while it is refreshed",
    Standing.LAST_RESORT: "past its freshness, within stale-if-error: answered only if the origin fails",
    Standing.DEAD: "past every window: not answered",
    Standing.REFUSED: "not later than a fence, the floor or the staleness bound: refused",
}


class Explainer:
    def __init__(
        self,
        *,
        topology: Topology,
        namespaces: Mapping[str, Namespace],
        l1: L1,
        l2: Tier,
        server_of: Callable[[Key], str],
        homes: Homes,
        fences: Fences,
        admission: Admission,
        clock: Clock,
    ) -> None:
        self._topology = topology
        self._namespaces = namespaces
        self._l1 = l1
        self._l2 = l2
        self._server_of = server_of
        self._homes = homes
        self._fences = fences
        self._admission = admission
        self._clock = clock

    async def explain(self, key: Key) -> dict[str, object]:
        """JSON-able. A tier that does not answer is said so in its place."""
        namespace = self._namespaces[key.namespace]
        cell = self._homes.of(key)
        l1 = self._l1.peek(key)
        (l2,) = await self._l2.get_many([key])
        seen = [entry for entry in (l1, l2) if isinstance(entry, Entry)]
        try:
            home: CellKeyState | TierError = await cell.inspect(key, seen[0].tags if seen else ())
        except TierError as error:
            home = error
        tiers = {
            "l1": self._copy(key, namespace, l1),
            "l2": self._copy(key, namespace, l2),
            "l3": self._at_home(key, namespace, home),
        }
        return {
            "key": key.text,
            "namespace": key.namespace,
            "owner": namespace.owner,
            "digest": f"{key.digest:016x}",
            "partition": partition(key.text),
            "home_cell": {"name": cell.name, "why": self._why_home(key), "region": self._topology.cells[cell.name].region},
            "memcached_server": self._server_of(key),
            "tiers": tiers,
            "fences": self._known(key, seen),
            "home": self._records(home),
            "now": self._verdict(tiers, namespace),
        }

    def _why_home(self, key: Key) -> str:
        return "pinned" if partition(key.text) in self._topology.pins else "rendezvous hash over active cells"

    def _copy(self, key: Key, namespace: Namespace, entry: Entry | TierError | None) -> dict[str, object]:
        if entry is None:
            return {"held": False}
        if isinstance(entry, TierError):
            return {"held": None, "unavailable": str(entry)}
        return self._described(entry, self._admission.standing(entry, key, namespace))

    def _at_home(self, key: Key, namespace: Namespace, home: CellKeyState | TierError) -> dict[str, object]:
        if isinstance(home, TierError):
            return {"held": None, "unavailable": str(home)}
        if home.entry is None:
            return {"held": False}
        entry = home.entry
        judged = max(home.fence_at, home.namespace_fence, *home.tag_fences.values(), 0) < entry.as_of
        reply = Reply(entry if judged else None, exact=entry.as_of > home.broken_at, fenced=not judged)
        return self._described(entry, self._admission.standing_at_home(reply, key, namespace, strict=False))

    def _described(self, entry: Entry, standing: Standing) -> dict[str, object]:
        now = self._clock.now_us()
        return {
            "held": True,
            "standing": standing.value,
            "rule": RULES[standing],
            "etag": etag(entry),
            "as_of": entry.as_of,
            "age_seconds": round((now - entry.as_of) / 1e6, 3),
            "ttl_seconds": round((entry.fresh_until - now) / 1e6, 3),
            "stale_while_revalidate_seconds": entry.stale_for / 1e6,
            "stale_if_error_seconds": entry.error_for / 1e6,
            "negative": entry.negative,
            "bytes": len(entry.value),
            "tags": list(entry.tags),
        }

    def _known(self, key: Key, seen: list[Entry]) -> dict[str, object]:
        tags = seen[0].tag_digests if seen else ()
        bound = self._fences.bound_us(self._clock.now_us())
        return {
            "newest_known_here": self._fences.fence_on(key.digest, tags, key.namespace),
            "floor": self._fences.floor,
            "staleness_bound_seconds": None if bound is None else round(bound / 1e6, 3),
        }

    @staticmethod
    def _records(home: CellKeyState | TierError) -> dict[str, object]:
        if isinstance(home, TierError):
            return {"unavailable": str(home)}
        return {
            "key_fence": home.fence_at,
            "tag_fences": home.tag_fences,
            "namespace_fence": home.namespace_fence,
            "lease_held": home.lease_held,
            "lease_as_of": home.lease_as_of,
            "broken_at": home.broken_at,
            "clock": home.now_us,
        }

    @staticmethod
    def _verdict(tiers: Mapping[str, Mapping[str, object]], namespace: Namespace) -> dict[str, str]:
        """The first tier whose copy is answered; else what happens instead."""
        for wanted in (Standing.FRESH, Standing.STALE):
            for tier, copy in tiers.items():
                if copy.get("standing") == wanted.value:
                    return {"a_read_would": f"answer from {tier}", "because": RULES[wanted]}
        if namespace.origin is not None:
            return {"a_read_would": "load from the origin", "because": "no tier holds a copy that may be answered"}
        return {"a_read_would": "miss", "because": "no tier holds a copy that may be answered, and the caller loads (look-aside)"}
