"""The value behind the cache in the traces: 0 before the write, 1 after it."""

from typing import Any

from cachesvc.model.change import Target
from cachesvc.model.fence import Fence
from cachesvc.model.requests import Receipt
from tests.doubles.loaders import loaded
from tests.paths.world import FarSide, Instance


class Store:
    """The store that the origin's loads read: a load reads the value when it is let go."""

    def __init__(self, far: FarSide, tags: tuple[str, ...] = ()) -> None:
        self.value = b"0"
        far.loader.default = lambda _: loaded(self.value, tags=tags)

    def commit(self) -> None:
        self.value = b"1"


TARGETS: dict[str, dict[str, Any]] = {
    "key": {"keys": ["a"]},
    "tag": {"tags": ["t"]},
    "namespace": {"whole": True},
}
"""The targets by which key `a`, with the tag `t`, may be invalidated."""


async def invalidate(instance: Instance, what: str) -> None:
    """Invalidates one of `TARGETS` through the instance; its homes take it."""
    named = TARGETS[what]
    receipt = await instance.invalidate(
        *named.get("keys", ()), tags=named.get("tags", ()), whole=named.get("whole", False)
    )
    assert receipt.applied


async def hear(instance: Instance) -> None:
    """Merges what the stream has."""
    while fences := (await instance.stream.read(wait_seconds=0)).fences:
        instance.merger.merge(fences)


def tell(instance: Instance, receipt: Receipt) -> None:
    """Merges another instance's invalidation into `instance`, as the instance's feed would."""
    whole = Target.whole("docs").digest
    instance.merger.merge(
        [
            Fence(digest, at, namespace="docs" if digest == whole else "", unapplied=not receipt.applied)
            for digest, at in receipt.token
        ]
    )
