"""What a key may be: 1 to 1024 bytes of UTF-8 without control characters. Tags: `cache_groups.check_tag`."""

import re

MAX_KEY_BYTES = 1024

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


def check_key(text: str) -> str:
    """The key itself, if it is within the rules. Else raises `ValueError` with the rule it breaks."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("a key is UTF-8, without lone surrogates") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise ValueError(f"a key has 1 to {MAX_KEY_BYTES} bytes, this one has {size}")
    # isprintable() settles nearly all of them in a fraction of the time, but also refuses some letters and spaces we take.
    if not text.isprintable() and (match := _CONTROL(text)):
        raise ValueError(f"a key has no control characters: U+{ord(match[0]):04X} is one")
    return text
