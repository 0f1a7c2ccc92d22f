"""Strong validators: a hash of value and content type, never a counter (RFC 9110, 8.8.3)."""

from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from cachesvc.model.entry import Entry


def etag(entry: Entry) -> str:
    """Returns the quoted ETag of an entry.

    Entries of equal bytes and content type have equal ETags in every tier, region and release.
    """
    return f'"{xxh3_64_hexdigest(entry.value, xxh3_64_intdigest(entry.content_type.encode()))}"'
