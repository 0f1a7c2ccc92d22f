"""How a namespace's values become bytes and come back."""

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cachesvc_client.wire import JSON as JSON_TYPE
from cachesvc_client.wire import MSGPACK as MSGPACK_TYPE
from cachesvc_client.wire import OCTETS

V = TypeVar("V")


class Codec(Protocol[V]):
    """May raise anything from `decode`: the value then counts as undecodable, as after a change of its type."""

    @property
    def content_type(self) -> str: ...

    def encode(self, value: V, /) -> bytes: ...

    def decode(self, value: bytes, /) -> V: ...


class _Bytes:
    content_type = OCTETS

    def encode(self, value: bytes) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(f"a value here is bytes, not {type(value).__name__}: name a codec= or a type= for the namespace")
        return value

    def decode(self, value: bytes) -> bytes:
        return value


class _Typed(Generic[V]):
    def __init__(self, content_type: str, encode: Any, decode: Any) -> None:
        self.content_type = content_type
        self._encode = encode
        self._decode = decode

    def encode(self, value: V) -> bytes:
        encoded: bytes = self._encode(value)
        return encoded

    def decode(self, value: bytes) -> V:
        decoded: V = self._decode(value)
        return decoded


def json_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """JSON that must fit `type`: a msgspec struct, dataclass, TypedDict, list[int], …"""
    return _Typed(JSON_TYPE, msgspec.json.encode, msgspec.json.Decoder(type).decode)


def msgpack_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """MessagePack that must fit `type`."""
    return _Typed(MSGPACK_TYPE, msgspec.msgpack.encode, msgspec.msgpack.Decoder(type).decode)


BYTES: Codec[bytes] = _Bytes()
JSON: Codec[Any] = json_of(Any)
MSGPACK: Codec[Any] = msgpack_of(Any)
