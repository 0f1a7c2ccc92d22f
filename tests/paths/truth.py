"""The value behind the cache in the traces: 0 before the write, 1 after it."""

from cachesvc.model.fence import Fence
from cachesvc.model.requests import Receipt
from tests.doubles.loaders import loaded
from tests.paths.world import FarSide, Instance


class Store:
    """What the origin's loads read: the value at the moment they are let go."""

    def __init__(self, far: FarSide, tags: tuple[str, ...] = ()) -> None:
        self.value = b"0"
        far.loader.default = lambda _: loaded(self.value, tags=tags)

    def commit(self) -> None:
        self.value = b"1"


def tell(instance: Instance, receipt: Receipt) -> None:
    """What its feed does with the fences of an invalidation by another instance."""
    instance.merger.merge([Fence(digest, at, unapplied=not receipt.applied) for digest, at in receipt.token])
