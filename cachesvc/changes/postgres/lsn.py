"""Places in the log of PostgreSQL (LSN), as numbers and as its text `16/B374D848`."""


def lsn_of(text: str) -> int:
    """Returns the place that a text names. Raises `ValueError`."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def text_of(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
