from enum import StrEnum

from msgspec import Struct

from cachesvc.model.digest import digest, key_id, namespace_id, tag_id
from cachesvc.model.units import Duration


class TargetKind(StrEnum):
    KEY = "key"
    TAG = "tag"
    NAMESPACE = "namespace"


class Target(Struct, frozen=True, gc=False):
    """What an invalidation names: a key, a tag or a whole namespace."""

    kind: TargetKind
    namespace: str
    text: str
    """The key or the tag; empty for a namespace."""
    id: bytes
    digest: int

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
    """What a producer says: these targets of this namespace changed. The `data` of a `dev.cachesvc.change.v1` event."""

    namespace: str
    keys: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    all: bool = False
    soft: bool = False
    """Copies become stale instead of gone."""
    over: str = ""
    """A duration such as `5m`: pace it. Each entry becomes stale at its own moment of that window."""

    @property
    def over_us(self) -> int:
        """Raises `ValueError` for what is no duration: who takes a change in checks this first."""
        return int(Duration.parse(self.over)) if self.over else 0

    def targets(self) -> list[Target]:
        found = [Target.key(self.namespace, key) for key in self.keys]
        found += [Target.tag(self.namespace, tag) for tag in self.tags]
        if self.all:
            found.append(Target.whole(self.namespace))
        return found
