"""A change: what a producer says has changed, and the targets that follow from it."""

from enum import StrEnum

from msgspec import Struct

from cachesvc.model.digest import digest, key_id, namespace_id, tag_id
from cachesvc.model.units import Duration


class TargetKind(StrEnum):
    KEY = "key"
    TAG = "tag"
    NAMESPACE = "namespace"


class Target(Struct, frozen=True, gc=False):
    """A key, a tag or a whole namespace, as an invalidation names it."""

    kind: TargetKind
    namespace: str
    text: str
    """The key or the tag; empty for a namespace."""
    id: bytes
    """The canonical bytes (`model/digest.py`)."""
    digest: int
    """The digest of `id`."""

    @classmethod
    def key(cls, namespace: str, text: str) -> "Target":
        return cls._of(TargetKind.KEY, namespace, text, key_id(namespace, text))

    @classmethod
    def tag(cls, namespace: str, text: str) -> "Target":
        return cls._of(TargetKind.TAG, namespace, text, tag_id(namespace, text))

    @classmethod
    def whole(cls, namespace: str) -> "Target":
        return cls._of(TargetKind.NAMESPACE, namespace, "", namespace_id(namespace))

    @classmethod
    def _of(cls, kind: TargetKind, namespace: str, text: str, id_: bytes) -> "Target":
        return cls(kind, namespace, text, id_, digest(id_))


class Change(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A producer's word that these targets of a namespace changed.

    It is the `data` of an event of type `dev.cachesvc.change.v1`.
    """

    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    """The whole namespace changed."""
    soft: bool = False
    """Copies become stale instead of gone."""
    over: str = ""
    """A duration such as `5m`, in which the change is paced: each entry becomes stale at its
    own moment. Empty: at once."""

    @property
    def over_us(self) -> int:
        """The window of a paced change in µs, 0 without one.

        Raises `ValueError` if `over` is no duration; it is checked where a change is read.
        """
        return int(Duration.parse(self.over)) if self.over else 0

    def targets(self) -> list[Target]:
        """Returns the keys, then the tags, then the namespace if all of it changed."""
        found = [Target.key(self.namespace, key) for key in self.keys]
        found += [Target.tag(self.namespace, tag) for tag in self.tags]
        if self.all:
            found.append(Target.whole(self.namespace))
        return found
