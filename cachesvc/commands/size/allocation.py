"""The bytes that Redis and memcached take for what they are given.

Redis: jemalloc with a quantum of 16 bytes, strings as SDS (a header, the bytes, a NUL), and for
each key a robj, an entry of the table of keys and one of the table of expiries. Tables have a power
of two of slots. Sorted sets above 128 members are a skip list and a table. Sources: jemalloc(3),
"Size classes", and sds.h, dict.h and server.h of Redis 7.0. memcached: an item is its header, CAS
id, name and value, in a chunk of the smallest class that holds it; classes grow by 1.25
(doc/protocol.txt and slabs.c of memcached 1.6).
"""

import bisect
import math

ROBJ, DICT_ENTRY, POINTER = 16, 32, 8
SKIP_LIST_NODE = 55
"""The mean node of a skip list.

Element, score, one pointer back, and 1.33 levels of 16 bytes."""
ITEM_HEAD = 48 + 8
"""The header of memcached's item, and its CAS id.

A NUL behind the name and CR LF are three bytes more."""


def allocated(size: int) -> int:
    """Returns the size class of jemalloc that holds `size` bytes."""
    if size <= 128:
        return max(16, -(-size // 16) * 16)
    step = 1 << (size - 1).bit_length() - 3
    return -(-size // step) * step


def sds(length: int) -> int:
    """Returns the memory of a string of Redis."""
    head = 1 if length < 32 else 3 if length < 256 else 5 if length < 65536 else 9
    return allocated(head + length + 1)


def table(entries: float) -> float:
    """Returns the memory of the slots of a table with `entries`."""
    return POINTER * 2 ** math.ceil(math.log2(entries)) if entries > 1 else 0.0


def redis_keys(number: float, name: int, value: int) -> float:
    """Returns the memory of `number` keys with an expiry, with names and values this long."""
    each = sds(name) + sds(value) + ROBJ + 2 * DICT_ENTRY
    return number * each + 2 * table(number)


def redis_members(number: float, length: int) -> float:
    """Returns the memory of a sorted set of `number` members of this length."""
    return number * (SKIP_LIST_NODE + sds(length) + DICT_ENTRY) + table(number)


def _classes() -> list[int]:
    sizes, size = [], 96
    while size <= 512 << 10:
        sizes.append(size)
        size = -(-int(size * 1.25) // 8) * 8
    return sizes


_CHUNKS = _classes()


def memcached_item(name: int, value: int) -> int:
    """Returns the chunk of memcached for an item; one above 512 KiB is cut into such chunks."""
    size = ITEM_HEAD + name + value + 3
    at = bisect.bisect_left(_CHUNKS, size)
    return _CHUNKS[at] if at < len(_CHUNKS) else -(-size // (512 << 10)) * (512 << 10)
