"""The checker's values, `key:w:checksum`: each names its write, so every answer has its
place in the history."""

from cachesvc.model.digest import digest


class DamagedValueError(ValueError):
    """The bytes are not a value of this key."""


def encode(key: str, w: int) -> bytes:
    """The value of the key's write `w`."""
    body = f"{key}:{w}"
    return f"{body}:{digest(body.encode()):016x}".encode()


def decode(key: str, value: bytes) -> int:
    """The `w` of a value of `key`. Raises `DamagedValueError`."""
    _, _, w = value.rpartition(b":")[0].rpartition(b":")
    if not w.isdigit() or encode(key, int(w)) != value:
        raise DamagedValueError(f"not a value of {key!r}: {value[:80]!r}")
    return int(w)
