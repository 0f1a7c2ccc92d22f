"""The place that a request target names.

It works on the bytes as they were sent, so that an escaped `/` or `:explain` stays a part of the
key. A key is one percent-encoded path segment of 1 to 1024 bytes of UTF-8 without control
characters.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import StrEnum
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from cachesvc.config.topology_rules import REGION_NAME
from cachesvc.model import cache_groups
from cachesvc.model.did_you_mean import there_is
from cachesvc.model.entry import Key, Keys
from cachesvc.model.errors import RequestError
from cachesvc.model.key_text import MAX_KEY_BYTES, check_key
from cachesvc.model.problems import ProblemKind

PLAIN_PATH = rf"/v1/([a-z0-9_-]+)/([A-Za-z0-9._~!$&'()*+,;=:@{{}}-]{{1,{MAX_KEY_BYTES}}})(?<!:explain)"
"""A key path without a single escape, which names the key as it is written. Every other
path is looked at piece by piece."""
_PLAIN_KEY = re.compile(PLAIN_PATH).fullmatch
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE).match


class Kind(StrEnum):
    """The kinds of places, one for each row of the table of calls in `server.py`."""

    KEY = "key"
    EXPLAIN = "explain"
    GET_MANY = "get_many"
    PUT_MANY = "put_many"
    INVALIDATIONS = "invalidations"
    RECEIPT = "receipt"
    FENCES = "fences"
    TOPOLOGY = "topology"
    HOT_KEYS = "hotkeys"
    AUDIT = "audit"
    LIVEZ = "livez"
    READYZ = "readyz"
    METRICS = "metrics"
    OPENAPI = "openapi"


_FIXED = {
    "/v1/invalidations": Kind.INVALIDATIONS,
    "/v1/fences": Kind.FENCES,
    "/v1/topology": Kind.TOPOLOGY,
    "/v1/hotkeys": Kind.HOT_KEYS,
    "/v1/audit": Kind.AUDIT,
    "/livez": Kind.LIVEZ,
    "/readyz": Kind.READYZ,
    "/metrics": Kind.METRICS,
    "/openapi.json": Kind.OPENAPI,
}
RECEIPT_ID = re.compile(rf"{REGION_NAME.pattern}:[0-9]{{1,16}}-[0-9]{{1,16}}")
_VERBS = {"get": Kind.GET_MANY, "put": Kind.PUT_MANY}
_NOWHERE = Key("", "", b"", 0)


class Place(Struct, frozen=True, gc=False):
    """A place that a request target names, with the parts that were found in the target."""

    kind: Kind
    namespace: str = ""
    """A declared namespace; empty where the place has none."""
    key: Key = _NOWHERE
    query: str = ""
    receipt: str = ""
    """The id of a change, `region:id`."""


def plain_key_place(target: str, namespaces: Collection[str]) -> Place | None:
    """Returns the place of a key path without escapes in a declared namespace.

    None if a closer look (`place_of`) is needed.
    """
    match = _PLAIN_KEY(target)
    if match is None:
        return None
    namespace, text = match.groups()
    return Place(Kind.KEY, namespace, Key.of(namespace, text)) if namespace in namespaces else None


def place_of(target: str, check: Callable[[Kind, str], None]) -> Place:
    """Returns the place that `target` names.

    `check` is called with the namespace of a path, before anything behind it is looked at; what it
    raises is raised. Raises `RequestError`: `no-such-path` where there is nothing, else 400 with the
    segment that is out of rule.
    """
    if match := _AUTHORITY(target):
        target = target[match.end() :] or "/"
    path, _, query = target.partition("?")
    if (kind := _FIXED.get(path)) is not None:
        return Place(kind, query=query)
    segments = path.split("/")
    if segments[:2] != ["", "v1"] or len(segments) < 3:
        raise RequestError(ProblemKind.NO_SUCH_PATH, "there is nothing at this path: see /openapi.json")
    if query and not segments[-1].endswith(":explain"):
        raise RequestError(
            ProblemKind.BAD_QUERY, "this path takes no query; in a key, write '?' as %3F", field="query"
        )
    if segments[2] == "invalidations" and len(segments) == 4:
        return Place(Kind.RECEIPT, receipt=_receipt_id(segments[3]))
    if len(segments) > 4:
        raise RequestError(
            ProblemKind.BAD_KEY, "a key is one path segment: write '/' in it as %2F", field="key"
        )
    if len(segments) == 4:
        return _key_place(segments[2], segments[3], query, check)
    return _batch_place(segments[2], check)


def key_of(namespace: str, text: str, field: str) -> Key:
    """Returns the key. `field` is its place in the request.

    Raises `RequestError` (`bad-key`).
    """
    try:
        return Key.of(namespace, check_key(text))
    except ValueError as error:
        raise RequestError(ProblemKind.BAD_KEY, str(error), field=field) from None


def keys_of(namespace: str, texts: Sequence[str], field: str) -> Keys:
    """Returns the results of `key_of` for all of them, at a tenth of its cost per key.

    The rules are checked for all keys at once; only if one breaks them, one by one.
    """
    prefix = f"{namespace}/"
    if texts and "" not in texts and "".join(texts).isprintable():
        # A printable text has no line feed.
        ids = (prefix + f"\n{prefix}".join(texts)).encode().split(b"\n")
        if max(map(len, ids)) <= len(prefix) + MAX_KEY_BYTES:
            return Keys(namespace, texts, ids)
    keys = [key_of(namespace, text, f"{field}[{i}]") for i, text in enumerate(texts)]
    return Keys(namespace, texts, [key.id for key in keys])


def check_namespace(name: str, namespaces: Collection[str], field: str) -> None:
    """Raises `RequestError` (`no-such-namespace`) for a name that is none of `namespaces`.

    These are the declared ones that the caller may know of: the refusal lists them.
    """
    if name not in namespaces:
        raise RequestError(
            ProblemKind.NO_SUCH_NAMESPACE,
            f"no namespace {name[:64]!r}{there_is(namespaces)}",
            field=field,
        )


def check_tags(tags: Iterable[str], field: str) -> None:
    """Raises `RequestError` (`bad-tag`) with the path of the first tag that is out of rule."""
    for i, tag in enumerate(tags):
        try:
            cache_groups.check_tag(tag, i)
        except ValueError as error:
            raise RequestError(ProblemKind.BAD_TAG, str(error), field=f"{field}[{i}]") from None


def _key_place(namespace: str, key: str, query: str, check: Callable[[Kind, str], None]) -> Place:
    kind = Kind.KEY
    if key.endswith(":explain"):
        kind, key = Kind.EXPLAIN, key.removesuffix(":explain")
    name = _decoded(namespace, "namespace")
    check(kind, name)
    return Place(kind, name, key_of(name, _decoded(key, "key"), "key"), query)


def _batch_place(segment: str, check: Callable[[Kind, str], None]) -> Place:
    namespace, _, verb = segment.rpartition(":")
    if verb not in _VERBS:
        raise RequestError(ProblemKind.NO_SUCH_PATH, "there is nothing at this path: see /openapi.json")
    name = _decoded(namespace, "namespace")
    check(_VERBS[verb], name)
    return Place(_VERBS[verb], name)


def _receipt_id(segment: str) -> str:
    text = _decoded(segment, "id")
    if not RECEIPT_ID.fullmatch(text):
        raise RequestError(
            ProblemKind.BAD_RECEIPT,
            "the id of a receipt is region:id, such as eu:1700000000000-0",
            field="id",
        )
    return text


def _decoded(segment: str, field: str) -> str:
    if match := _BAD_ESCAPE(segment):
        bad = segment[match.start() : match.start() + 3]
        raise RequestError(
            ProblemKind.BAD_ESCAPE, f"{bad!a} is no percent-escape: write '%' as %25", field=field
        )
    try:
        return unquote_to_bytes(segment.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            ProblemKind.BAD_KEY, f"not UTF-8: byte {error.start} of the {field} segment", field=field
        ) from None
