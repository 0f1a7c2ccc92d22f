"""Limits on how much one request may bring.

They are checked here, and nowhere behind the web layer.
"""

from collections.abc import Iterable
from itertools import chain

from cachesvc.config.service import Server
from cachesvc.config.topology import Namespace
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind

MAX_CALLER_LENGTH = 128
"""Characters of a caller's name."""
MAX_LEASE_LENGTH = 256
"""Characters of a lease token. The tokens that cells grant are far shorter."""
MAX_TOKEN_HEADER = 2048
"""Letters (96 pairs) of a token that is answered in a header.

A longer one, of an invalidation of many keys, stands in the body alone: many clients and proxies
refuse an answer with a long header line (nginx above 4 KiB, aiohttp above 8 KiB), after the
invalidation was done."""
MAX_TOKEN_LENGTH = 32_768
"""Letters (1536 pairs) of a token in a request's body.

The token of an invalidation of the most keys comes back with a `:get` of as many keys."""
MAX_HEADER_LINE = 8704
"""Bytes of a header line that is taken.

A token of 8192 letters (384 pairs), the longest that an SDK sends with a read of one key, fits into
it; aiohttp's own limit is two bytes below that."""
MAX_MEDIA_TYPE_LENGTH = 256
"""Characters of a content type."""
MOST_RECORDS = 1000
"""Records of the audit in one answer."""
MAX_SOURCE_LAG_SECONDS = 60
"""The longest lag of a fill's source.

Cells keep fences a minute longer than any copy, so that a fill which is so old still meets every
fence that refuses it.
"""


def check_header_bytes(raw_headers: Iterable[tuple[bytes, bytes]], most: int) -> None:
    """Raises `RequestError` (`head-too-large`) above `most` bytes of header lines together.

    A plain `GET`, whose headers are all of kinds that change nothing, is not measured.
    """
    if sum(map(len, chain.from_iterable(raw_headers))) > most:
        why = f"the headers of a request have at most {most} bytes together"
        raise RequestError(ProblemKind.HEAD_TOO_LARGE, why)


def check_count(count: int, limits: Server, field: str) -> None:
    """Raises `RequestError` (`too-many-keys`) above `server.max_batch_keys`."""
    if count > limits.max_batch_keys:
        why = f"{count} keys, items or tags, at most {limits.max_batch_keys}"
        raise RequestError(ProblemKind.TOO_MANY_KEYS, why, field=field)


def check_tag_count(count: int, contract: Namespace, field: str) -> None:
    """Raises `RequestError` (`bad-tag`) above the namespace's `tags_max`."""
    if count > contract.tags_max:
        raise RequestError(ProblemKind.BAD_TAG, f"more than {contract.tags_max} tags", field=field)


def value_refusal(size: int, contract: Namespace, field: str) -> RequestError | None:
    """Returns the refusal (`value-too-large`) of a value of `size` bytes.

    None if the namespace takes the value.
    """
    if size <= contract.max_value:
        return None
    why = f"a value of this namespace has at most {contract.max_value} bytes, this one has {size}"
    return RequestError(ProblemKind.VALUE_TOO_LARGE, why, field=field)
