"""Estimates what an invalidation would touch. Changes nothing, not even the order of L1."""

import asyncio

from cachesvc.model.change import Change
from cachesvc.model.digest import namespace_id
from cachesvc.model.requests import Estimate
from cachesvc.telemetry.popularity.read_sample import ReadSample
from cachesvc.tiers.l1.l1 import L1
from cachesvc.tiers.l3.homes import Homes


class Estimator:
    """Estimates what invalidations would touch, by L1, the sample of reads and the placement."""

    def __init__(self, l1: L1, sample: ReadSample, homes: Homes) -> None:
        self._l1 = l1
        self._sample = sample
        self._homes = homes

    async def estimate(self, change: Change) -> Estimate:
        """The copies held in L1, the share of recent reads, and the cells that a change concerns.

        Walks over L1 a shard at a time and lets the loop go on in between (a millisecond or two per
        shard): copies that come or go meanwhile are counted or not.
        """
        targets = change.targets()
        return Estimate(
            await self._held(change),
            self._sample.share({target.digest for target in targets}),
            len(self._sample),
            tuple(sorted({cell.name for target in targets for cell in self._homes.of_target(target)})),
        )

    async def _held(self, change: Change) -> int:
        prefix = namespace_id(change.namespace) + b"/"
        keys = {target.id for target in change.targets()}
        tags = set(change.tags)
        held = 0
        for shard in self._l1.copies():
            held += sum(
                change.all or key_id in keys or not tags.isdisjoint(entry.tags)
                for key_id, entry in shard
                if key_id.startswith(prefix)
            )
            await asyncio.sleep(0)
        return held
