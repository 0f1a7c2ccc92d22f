"""Codecs make bytes of a namespace's values and back; schema versions keep deploys apart.

**A hit and a miss are the same value.** The codecs of this module decode what they have encoded. A
value that does not come back is refused (`CodecError`), and a loaded value is answered as it was
decoded, as every reader of its bytes will get it. Without a type, a part comes back only if it is
of the same type: `round_trip.py` has the comparison. With a type, parts are of the type's types, so
an equal value of another type is taken: 1 where a float is declared is answered as 1.0, always.

A schema version travels in the content type, `application/json; v=3`, which the service stores and
answers as it is. So values need no frame, and other clients can still read them. A reader takes
only values of its own version, so the two sides of a rolling deploy do not read each other's.
"""

import re
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from cachesvc_client.errors import CodecError, DeclarationError
from cachesvc_client.protocol.wire import JSON as JSON_TYPE
from cachesvc_client.protocol.wire import MSGPACK as MSGPACK_TYPE
from cachesvc_client.protocol.wire import OCTETS
from cachesvc_client.values.declared import check_declared, is_of_pydantic, pydantic_json
from cachesvc_client.values.immutable import is_immutable
from cachesvc_client.values.round_trip import difference, place_of_failure

V = TypeVar("V")

MAX_CONTENT_TYPE = 240
"""Characters of a codec's content type; with a version it stays within the service's 256."""
MAX_VERSION = 999_999_999

_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\x20-\x7e\t]*)?")
_NO_BIN = re.compile(rb"[^\xc4-\xc6]*")
"""MessagePack in which no byte can be the first one of a `bin`.

Other parts may have such bytes too.
"""
_VERSION = re.compile(r";[ \t]*v=([0-9]{1,9})(?![^; \t])")


class Codec(Protocol[V]):
    """A way to make bytes of values, and values of bytes.

    `decode` may raise any `Exception`: the value then counts as unreadable, as it would after a
    change of its type. The sync client calls a codec from several threads. A codec of your own has
    to bring back what it encodes: this is not checked, and a loaded value is answered as the loader
    returned it.
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


class Sealed(NamedTuple, Generic[V]):
    """A value that can be stored."""

    encoded: bytes
    value: V
    """The value as every reader of the bytes gets it."""


class _Bytes:
    content_type = OCTETS
    makes_immutable = True

    def encode(self, value: bytes) -> bytes:
        if type(value) is not bytes:  # a subclass would come back as bytes
            raise CodecError(
                f"a value here is bytes, not {type(value).__name__}:"
                " name a codec= or a type= for the namespace"
            )
        return value

    def decode(self, value: bytes) -> bytes:
        return value


class _Checked(Generic[V]):
    """A codec that takes only values which come back."""

    def __init__(
        self, content_type: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], declared: Any
    ) -> None:
        """`declared`: the type of the values, as the namespace names it; `Any` for none."""
        self.content_type = content_type
        self.makes_immutable = is_immutable(declared)
        self._declared = declared
        self._encode = encode
        self._decode = decode
        self._is_exact = declared in (Any, object)
        self._is_binary = content_type == MSGPACK_TYPE

    def __reduce__(self) -> tuple[Callable[[Any], Codec[Any]], tuple[Any]]:
        """Has the codec pickled and copied as its declaration."""
        return msgpack_of if self._is_binary else json_of, (self._declared,)

    def encode(self, value: V) -> bytes:
        return self.seal(value).encoded

    def seal(self, value: V) -> Sealed[V]:
        """Returns the bytes, and what is decoded from them. Raises `CodecError` if that differs."""
        try:
            encoded = self._encode(value)
        except Exception as error:
            raise CodecError(f"{place_of_failure(value, self._encode)}: {error}") from error
        try:
            back = self._decode(encoded)
        except Exception as error:
            hint = "" if value is not None else ": ABSENT stands for a value that does not exist"
            raise CodecError(f"the value could not be read again: {error}{hint}") from error
        try:
            has_bytes = self._is_binary and not _NO_BIN.fullmatch(encoded)
            why = difference(value, back, exact=self._is_exact, has_bytes=has_bytes)
        except RecursionError as error:
            raise CodecError("$: the value is nested too deeply") from error
        if why:
            cure = "name a type= for the namespace" if self._is_exact else "name a type= that fits"
            raise CodecError(f"{why}: {cure}, or change the value")
        return Sealed(encoded, back)

    def decode(self, value: bytes) -> V:
        decoded: V = self._decode(value)
        return decoded


def json_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """Returns a codec for JSON that must fit `type`: a msgspec struct, dataclass, list[int], …

    A type with a model of pydantic in it is read and written by pydantic. Raises
    `DeclarationError` for a type of which no JSON can be made.
    """
    if is_of_pydantic(type):
        return _Checked(JSON_TYPE, *pydantic_json(type), type)
    check_declared(type)
    return _Checked(JSON_TYPE, msgspec.json.encode, msgspec.json.Decoder(type).decode, type)


def msgpack_of(type: type[V]) -> Codec[V]:  # noqa: A002  the word callers use
    """Returns a codec for MessagePack that must fit `type`, as `json_of` does for JSON.

    Models of pydantic have only JSON.
    """
    if is_of_pydantic(type):
        raise DeclarationError(f"type: {type!r} is of pydantic, which writes JSON: use json_of")
    check_declared(type)
    return _Checked(MSGPACK_TYPE, msgspec.msgpack.encode, msgspec.msgpack.Decoder(type).decode, type)


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
        """Raises `ValueError` for a codec that is none, and for what cannot be sent."""
        plain = getattr(codec, "content_type", None)
        if not (callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None))):
            raise ValueError(
                f"codec: {codec!r} has no encode and decode: JSON and MSGPACK are codecs;"
                " of the type of the values say type="
            )
        if not isinstance(plain, str) or len(plain) > MAX_CONTENT_TYPE or not _MEDIA_TYPE.fullmatch(plain):
            raise ValueError(
                f"codec: its content_type {str(plain)[:80]!r} is no media type, such as application/json"
            )
        if version_of(plain):
            raise ValueError(f"codec: its content_type {plain[:80]!r} names a version: say version= instead")
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= MAX_VERSION:
            raise ValueError(f"version: {version!r} is no whole number from 1 to {MAX_VERSION}")
        self.version = version
        self.content_type = f"{plain}; v={version}" if version else plain
        self.makes_immutable = makes_immutable(codec)
        self._encode = codec.encode
        self._decode = codec.decode
        self._seal: Callable[[V], Sealed[V]] | None = codec.seal if isinstance(codec, _Checked) else None

    def encode(self, value: V) -> bytes:
        """Returns the bytes of a value; raises `CodecError` if it would not come back."""
        encoded = self._encode(value)
        if not isinstance(encoded, bytes):  # a codec of the caller's
            raise CodecError(f"the codec's encode returned {type(encoded).__name__}, not bytes")
        return encoded

    def seal(self, value: V) -> Sealed[V]:
        """Returns the bytes of a value, and the value as their readers get it; raises as `encode`."""
        return Sealed(self.encode(value), value) if self._seal is None else self._seal(value)

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
