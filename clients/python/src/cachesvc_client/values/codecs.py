"""Codecs make bytes of a namespace's values and back; schema versions keep deploys apart.

A schema version travels in the content type, `application/json; v=3`, which the service stores and
answers as it is. So values need no frame, and other clients can still read them. A reader takes
only values of its own version, so the two sides of a rolling deploy do not read each other's.
"""

import re
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cachesvc_client.protocol.wire import JSON as JSON_TYPE
from cachesvc_client.protocol.wire import MSGPACK as MSGPACK_TYPE
from cachesvc_client.protocol.wire import OCTETS
from cachesvc_client.values.immutable import is_immutable

V = TypeVar("V")

MAX_CONTENT_TYPE = 240
"""Characters of a codec's content type; with a version it stays within the service's 256."""
MAX_VERSION = 999_999_999

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\x20-\x7e\t]*)?")
_VERSION = re.compile(r";[ \t]*v=([0-9]{1,9})(?![^; \t])")


class Codec(Protocol[V]):
    """A way to make bytes of values, and values of bytes.

    `decode` may raise any `Exception`: the value then counts as unreadable, as it would after a
    change of its type. The sync client calls a codec from several threads.
    """

    @property
    def content_type(self) -> str: ...

    def encode(self, value: V, /) -> bytes: ...

    def decode(self, value: bytes, /) -> V: ...


def makes_immutable(codec: Codec[Any]) -> bool:
    """True if one decoded object may be handed to many callers.

    A codec of your own says so by a true attribute `makes_immutable`.
    """
    return bool(getattr(codec, "makes_immutable", False))


class _Bytes:
    content_type = OCTETS
    makes_immutable = True

    def encode(self, value: bytes) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(
                f"a value here is bytes, not {type(value).__name__}:"
                " name a codec= or a type= for the namespace"
            )
        return value

    def decode(self, value: bytes) -> bytes:
        return value


class _Typed(Generic[V]):
    def __init__(self, content_type: str, encode: Any, decode: Any, *, makes_immutable: bool) -> None:
        self.content_type = content_type
        self.makes_immutable = makes_immutable
        self._encode = encode
        self._decode = decode

    def encode(self, value: V) -> bytes:
        encoded: bytes = self._encode(value)
        return encoded

    def decode(self, value: bytes) -> V:
        decoded: V = self._decode(value)
        return decoded


def json_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """Returns a codec for JSON that must fit `type`: a msgspec struct, dataclass, list[int], …"""
    return _Typed(
        JSON_TYPE, msgspec.json.encode, msgspec.json.Decoder(type).decode, makes_immutable=is_immutable(type)
    )


def msgpack_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """Returns a codec for MessagePack that must fit `type`, as `json_of` does for JSON."""
    return _Typed(
        MSGPACK_TYPE,
        msgspec.msgpack.encode,
        msgspec.msgpack.Decoder(type).decode,
        makes_immutable=is_immutable(type),
    )


BYTES: Codec[bytes] = _Bytes()
JSON: Codec[Any] = json_of(Any)
MSGPACK: Codec[Any] = msgpack_of(Any)


class UnreadableError(Exception):
    """The stored bytes are of another version or type than this reader takes.

    To callers this is a miss, not a failure.
    """

    def __init__(self, why: str, *, newer: bool = False) -> None:
        super().__init__(why)
        self.newer = newer
        """True if a later version wrote the value; this reader must then not replace it.

        Otherwise the two versions would replace each other's values in turns.
        """


class Schema(Generic[V]):
    """A codec at a schema version; 0 is the version of values that name none."""

    def __init__(self, codec: Codec[V], version: int = 0) -> None:
        """Raises `ValueError` for a content type or a version that cannot be sent."""
        plain = codec.content_type
        if len(plain) > MAX_CONTENT_TYPE or not _MEDIA_TYPE.fullmatch(plain):
            raise ValueError(
                f"codec: its content_type {plain[:80]!r} is no media type, such as application/json"
            )
        if version_of(plain):
            raise ValueError(f"codec: its content_type {plain[:80]!r} names a version: say version= instead")
        if isinstance(version, bool) or not 0 <= version <= MAX_VERSION:
            raise ValueError(f"version: {version!r} is no whole number from 1 to {MAX_VERSION}")
        self.version = version
        self.content_type = f"{plain}; v={version}" if version else plain
        self.makes_immutable = makes_immutable(codec)
        self._encode = codec.encode
        self._decode = codec.decode

    def encode(self, value: V) -> bytes:
        return self._encode(value)

    def decode(self, value: bytes, content_type: str) -> V:
        """Returns the value; raises `UnreadableError` if it is of another version or type.

        The media type is not compared: origins spell it as they like, and a value of another type
        does not decode.
        """
        if content_type != self.content_type and (version := version_of(content_type)) != self.version:
            why = f"the stored value has schema version {version}, this reader takes {self.version}"
            raise UnreadableError(why, newer=version > self.version)
        try:
            return self._decode(value)
        except Exception as error:  # the codec is the caller's and may raise anything
            raise UnreadableError(f"the stored value does not fit the namespace's codec: {error}") from error


def version_of(content_type: str) -> int:
    """Returns the schema version that the content type names; 0 if it names none."""
    match = _VERSION.search(content_type)
    return int(match[1]) if match else 0
