"""What may be called what. Checked here, because the service refuses a whole batch for one bad name in it: a caller's
mistake must not reach the batch that it shares with others.
"""

import re
from collections.abc import Iterable

MAX_KEY_BYTES = 1024
MAX_TAG_BYTES = 256
MAX_CALLER_LENGTH = 128

_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_RECEIPT_ID = re.compile(r"[a-z][a-z0-9-]{0,63}:[0-9]{1,16}-[0-9]{1,16}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TAG = re.compile(rf"[ -~]{{1,{MAX_TAG_BYTES}}}")


def check_namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise ValueError(f"namespace {name!r}: 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter")
    return name


def check_caller(name: str) -> str:
    if not (
        len(name) <= MAX_CALLER_LENGTH and name.isascii() and name.isprintable() and name == name.strip()
    ):
        raise ValueError(
            f"caller {name!r}: at most {MAX_CALLER_LENGTH} printable ASCII characters, no space at its ends"
        )
    return name


def check_receipt_id(id_: str) -> None:
    if not _RECEIPT_ID.fullmatch(id_):
        raise ValueError(f"receipt {id_!r}: is no id, such as eu:1700000000000-0")


def check_key(key: str) -> None:
    """Raises `ValueError` for a key the service would refuse. The first line settles nearly all of them."""
    if key.isascii() and key.isprintable() and 0 < len(key) <= MAX_KEY_BYTES:
        return
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"key {key!r}: not UTF-8, it has a lone surrogate") from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise ValueError(f"key {key[:64]!r}: has {size} bytes, a key has 1 to {MAX_KEY_BYTES}")
    if _CONTROL.search(key):
        raise ValueError(f"key {key!r}: has a control character")


def checked_keys(keys: Iterable[str]) -> list[str]:
    found = listed(keys, "keys")
    text = "".join(found)
    if (
        text.isascii()
        and text.isprintable()
        and all(found)
        and len(max(found, key=len, default="")) <= MAX_KEY_BYTES
    ):
        return found  # nearly always, and for a tenth of what it costs to look at each
    for key in found:
        check_key(key)
    return found


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    found = tuple(listed(tags, "tags")) if tags else ()
    for tag in found:
        if not _TAG.fullmatch(tag):
            raise ValueError(f"tag {tag!r}: a tag has 1 to {MAX_TAG_BYTES} printable ASCII characters")
    return found


def listed(names: Iterable[str], what: str) -> list[str]:
    if isinstance(names, str):  # it would be taken for its letters
        raise ValueError(f"{what}: a list of them, not one text: [{names!r}]")  # noqa: TRY004  a mistake in a value like the rest
    return list(names)
