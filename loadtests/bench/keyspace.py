"""The keys, their 512-byte values, and the requests as the bytes that go over the wire.

Requests are made once, before any timing: a driver only takes the next one.
"""

import random
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

import msgspec

NAMESPACE = "bench"
KEYS = 2_000
VALUE_BYTES = 512
BATCH = 100
MSGPACK = "application/msgpack"


def key_of(number: int) -> str:
    """The text of the key with this number."""
    return f"block-{number:06d}"


def value_of(number: int) -> bytes:
    """The value of the key with this number.

    It cannot be compressed, and differs for every key, so that a mixed-up answer is seen.
    """
    return random.Random(number).randbytes(VALUE_BYTES)


def values() -> dict[str, bytes]:
    """All keys and their values."""
    return {key_of(number): value_of(number) for number in range(KEYS)}


def path_of(key: str) -> str:
    """The path of the key's `GET`."""
    return f"/v1/{NAMESPACE}/{quote(key, safe='')}"


def batches(keys: Sequence[str]) -> list[Sequence[str]]:
    """The keys in groups of `BATCH`."""
    return [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]


def wire(
    base_url: str, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """An HTTP/1.1 request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(base_url).netloc}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def get_requests(base_url: str, keys: Sequence[str], headers: Mapping[str, str] | None = None) -> list[bytes]:
    """A `GET` for each key, as bytes."""
    return [wire(base_url, "GET", path_of(key), headers=headers) for key in keys]


def batch_requests(base_url: str, keys: Sequence[str]) -> list[bytes]:
    """A `:get` for each group of keys, as bytes."""
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    bodies = [msgspec.msgpack.encode({"keys": list(batch)}) for batch in batches(keys)]
    return [wire(base_url, "POST", f"/v1/{NAMESPACE}:get", body, headers) for body in bodies]
