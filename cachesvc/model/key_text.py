"""The rules for the text of a key: 1 to 1024 bytes of UTF-8 without control characters.

Those for tags stand in `cache_groups.py` (`check_tag`).
"""

import re

MAX_KEY_BYTES = 1024

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


def check_key(text: str) -> str:
    """Returns the key itself. Raises `ValueError` with the rule that the text breaks."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("a key is UTF-8, without lone surrogates") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes, this one has {size}")
    # isprintable() accepts nearly all keys in a fraction of the time, but it also refuses some
    # letters and spaces that a key may have.
    if not text.isprintable() and (match := _CONTROL(text)):
        raise ValueError(f"a key has no control characters: U+{ord(match[0]):04X} is one")
    return text
