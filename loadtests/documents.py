"""What the reference origin's documents look like: bytes that say which key and which version of it they are. Pure."""


class OtherBytesError(ValueError):
    """These bytes are not a document of this key."""


def document(key: str, version: int, size: int) -> bytes:
    """The bytes of a key: readable at the front, the same in every process."""
    line = f"{key} v{version} ".encode()
    return (line * (size // len(line) + 1))[:size]


def version_of(key: str, value: bytes) -> int:
    """The version that a document says it is. Raises `OtherBytesError`; also for one too short to hold its first line."""
    front = f"{key} v".encode()
    digits, space, _ = value[len(front) :].partition(b" ")
    if not (value.startswith(front) and space and digits.isdigit()):
        raise OtherBytesError("the bytes of another key")
    return int(digits)
