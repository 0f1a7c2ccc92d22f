"""The rules for names: of namespaces, keys, tags, callers and receipts.

The client checks names itself, because the service refuses a whole batch for one bad name in it.
A caller's mistake must not reach the batch that the caller shares with others.
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
    """Returns the name; raises `ValueError` if it is no name of a namespace."""
    if not isinstance(name, str) or not _NAMESPACE.fullmatch(name):
        raise ValueError(f"namespace {name!r}: 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter")
    return name


def check_caller(name: str) -> str:
    """Returns the name; raises `ValueError` if it cannot be sent as `Cachesvc-Caller`."""
    if not (
        isinstance(name, str)
        and len(name) <= MAX_CALLER_LENGTH
        and name.isascii()
        and name.isprintable()
        and name == name.strip()
    ):
        raise ValueError(
            f"caller {name!r}: at most {MAX_CALLER_LENGTH} printable ASCII characters, no space at its ends"
        )
    return name


def check_receipt_id(id_: str) -> None:
    """Raises `ValueError` if the text is no id of a receipt."""
    if not isinstance(id_, str) or not _RECEIPT_ID.fullmatch(id_):
        raise ValueError(f"receipt {id_!r}: is no id, such as eu:1700000000000-0")


def check_key(key: str) -> None:
    """Raises `ValueError` for a key that the service would refuse.

    The second comparison settles nearly all keys.
    """
    if not isinstance(key, str):
        raise _not_text("key", key)
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
    """Returns the keys as a list; raises `ValueError` for one that the service would refuse."""
    found = listed(keys, "keys")
    try:
        text = "".join(found)
    except TypeError:
        raise _not_text("key", next(key for key in found if not isinstance(key, str))) from None
    if (
        text.isascii()
        and text.isprintable()
        and all(found)
        and len(max(found, key=len, default="")) <= MAX_KEY_BYTES
    ):
        return found  # nearly always; a check of all keys at once takes a tenth of the time of one by one
    for key in found:
        check_key(key)
    return found


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Returns the tags as a tuple; raises `ValueError` for one that the service would refuse."""
    found = tuple(listed(tags, "tags")) if tags else ()
    for tag in found:
        if not isinstance(tag, str):
            raise _not_text("tag", tag)
        if not _TAG.fullmatch(tag):
            raise ValueError(f"tag {tag!r}: a tag has 1 to {MAX_TAG_BYTES} printable ASCII characters")
    return found


def listed(names: Iterable[str], what: str) -> list[str]:
    """Returns the names as a list; raises `ValueError` if they are one text, or no list.

    A text would be split into its letters. `what` is the name of the argument, for the message.
    """
    if isinstance(names, str | bytes):
        raise ValueError(f"{what}: a list of them, not one text: [{names!r}]")
    try:
        return list(names)
    except TypeError:
        raise ValueError(f"{what}: a list of them, not {type(names).__name__}") from None


def _not_text(what: str, given: object) -> ValueError:
    return ValueError(f"{what} {given!r}: is {type(given).__name__}, and a {what} is a text (str)")
