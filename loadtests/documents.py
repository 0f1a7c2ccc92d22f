"""The reference origin's documents: bytes that name their key and their version.

No I/O.
"""


class OtherBytesError(ValueError):
    """The bytes are not a document of this key."""


def document(key: str, version: int, size: int) -> bytes:
    """The document of `key` with this version: `size` bytes, the same in every process.

    The bytes repeat the readable line `KEY vVERSION `.
    """
    line = f"{key} v{version} ".encode()
    return (line * (size // len(line) + 1))[:size]


def version_of(key: str, value: bytes) -> int:
    """The version that a document names.

    Raises `OtherBytesError`, also if the document is too short to hold its first line.
    """
    front = f"{key} v".encode()
    digits, space, _ = value[len(front) :].partition(b" ")
    if not (value.startswith(front) and space and digits.isdigit()):
        raise OtherBytesError("the bytes of another key")
    return int(digits)
