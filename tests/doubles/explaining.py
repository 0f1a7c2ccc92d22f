"""Doubles of what an explainer asks beside the paths: a pool, and other instances.

They work without a network.
"""

from collections.abc import Sequence

from cachesvc.explain.answer import Memcached, Question, Seen
from cachesvc.explain.explainer import Explainer
from cachesvc.model.entry import Key
from cachesvc.model.errors import TierUnavailableError
from cachesvc.tiers.l2.contract import Lookup
from cachesvc.tiers.l2.in_process import MemoryTier
from tests.doubles.tiers import ChaosTier


class FakePoolView:
    """A pool of one server, `m1`.

    `held` has the server's copies; `tier` is how the server answers the paths.
    """

    def __init__(self, tier: ChaosTier, held: MemoryTier) -> None:
        self.tier = tier
        self.held = held
        self.breaker = "closed"

    def memcached_of(self, key: Key) -> Memcached:
        return Memcached("m1", "it is the only one", self.breaker)

    async def look(self, key: Key) -> Lookup:
        if self.tier.down:
            return TierUnavailableError("m1", "down")
        return await self.held.look(key)


class FakePeers:
    """The instances of `explainers`, asked in this process.

    The prepared `answers` of other instances are added.
    """

    def __init__(self) -> None:
        self.explainers: list[Explainer] = []
        self.answers: list[Seen] = []

    async def ask(self, key: Key, question: Question) -> Sequence[Seen]:
        return [*[await explainer.see(key, question) for explainer in self.explainers], *self.answers]
