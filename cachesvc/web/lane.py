"""The fast lane: plain reads and batches of them, known by the bytes of their requests.

There is no second HTTP parser. A request that asks for nothing special is `GET`, a plain path,
`HTTP/1.1`, and a block of header lines that change nothing. Such a block is known once aiohttp's
parser has read it as a part of a whole request, and `plain_headers` has found nothing in it that
might change a read. It is known by its bytes, all of them:

    GET /v1/pages/k HTTP/1.1\\r\\n       a pattern: the path alone is looked at
    Host: …\\r\\nAccept: …\\r\\n\\r\\n       a known block of header lines, byte for byte

A later request with a known block is answered on the connection, without a task or a request
object: at once if L1 has a copy, else when its flight lands. Until then the connection keeps what
comes behind it, and stops to read if that is much. Whatever is not known, or may not be answered
here, goes on to aiohttp unchanged, with all bytes behind it. A block has its `Authorization`
within; whose it is, and until when, the door is asked at each request.

`traceparent` is another one in each request. So a block is known without its value, which stands
in one well-formed line.

A batch (`POST /v1/pages:get`) is known likewise, by its own blocks: without the values of
`Content-Length` and `Cachesvc-Timeout` either. The first one says where the body ends, which must
have come as a whole. The second one matters only for what L1 does not answer.
"""

import re
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias, TypeVar

from aiohttp.http import HttpVersion11, RawRequestMessage
from msgspec import Struct

from cachesvc.model.entry import Key
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.bodies import JSON, MSGPACK, media_of
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.requests.options import plain_headers
from cachesvc.web.routing import PLAIN_PATH

MOST_BLOCKS = 1024
"""The most blocks that are known; with one more, all are forgotten."""
LONGEST_BLOCK = 2048
"""The bytes of a block that is still worth to be known."""
END_OF_HEAD = b"\r\n\r\n"

_PLAIN_GET = re.compile(rb"GET %b HTTP/1\.1\r\n" % PLAIN_PATH.encode()).match
_PLAIN_BATCH = re.compile(rb"POST /v1/([a-z0-9_-]+):get HTTP/1\.1\r\n").match
_TRACEPARENT = re.compile(
    rb"\n[Tt]raceparent: (00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})\r\n"
).search
_LENGTH = re.compile(rb"\n[Cc]ontent-[Ll]ength: ([1-9][0-9]{0,6})\r\n").search
_TIMEOUT = re.compile(rb"\n[Cc]achesvc-[Tt]imeout: ([1-9][0-9]{0,8}(?:us|ms|s))\r\n").search


ANY_TIMEOUT = b"1s"
"""Stands for every well-formed `Cachesvc-Timeout`. An empty one would be refused."""
_OF_BATCHES = ("Content-Type", "Content-Length", "Cachesvc-Timeout")
"""The headers that a plain batch has, or may have, beside those of a plain read."""
T = TypeVar("T")


class PlainRead(Struct, frozen=True, gc=False):
    """A plain read, as its bytes say it."""

    key: Key
    traceparent: bytes
    """The value of the header; empty without one. `authorization` likewise."""
    authorization: bytes
    end: int
    """The place behind its last byte."""


class PlainBatch(Struct, frozen=True, gc=False):
    """A plain batch of reads, as its bytes say it. Nothing has looked at its body."""

    namespace: str
    media: str
    """The media type of the body."""
    body: bytes
    traceparent: bytes
    authorization: bytes
    end: int


Plain: TypeAlias = PlainRead | PlainBatch


class Waits(Protocol):
    """A connection that waits for the answer to a plain read, which goes on beyond L1."""

    def has_left(self) -> bool:
        """True if the peer has gone, or sends no more and may have gone."""
        ...

    def take(self, reply: Reply) -> None:
        """Takes the answer. Called once, not within the call that began the read."""
        ...


Answering: TypeAlias = Callable[[Plain, int, Waits], bytes | None]
"""Returns the whole answer to a read or a batch, if it may be given now.

Empty if that of a read comes later; None if it is for aiohttp's way. The number is the most bytes
that the values may have that L1 has.
"""


class Lane:
    """The fast lane of one port. Used on the event loop only."""

    def __init__(self, answer: Answering, namespaces: Collection[str], hosts: Hosts) -> None:
        """`namespaces` are the declared ones."""
        self.answer = answer
        self._namespaces: dict[bytes, str] = {}
        self.take(namespaces)
        self._hosts = hosts
        self._blocks: dict[bytes, bytes] = {}
        """Block of header lines without the value of `traceparent` → value of `Authorization`."""
        self._batches: dict[bytes, tuple[bytes, str]] = {}
        """Block of a batch, without the values that change → `Authorization`, and the media type."""

    def __repr__(self) -> str:
        return f"<Lane [{len(self._blocks) + len(self._batches)} blocks known]>"

    def take(self, namespaces: Collection[str]) -> None:
        """Knows these namespaces from now on, and no others."""
        self._namespaces = {name.encode(): name for name in namespaces}

    def read(self, data: bytes, at: int) -> Plain | None:
        """Returns the plain read or batch that stands at this place; None without a known one."""
        line = _PLAIN_GET(data, at)
        if line is None:
            return self._batch(data, at)
        if (namespace := self._namespaces.get(line[1])) is None:
            return None
        begin = line.end()
        end = data.find(END_OF_HEAD, begin) + len(END_OF_HEAD)
        block, traceparent = data[begin:end], b""
        authorization = self._blocks.get(block)
        if authorization is None:
            block, traceparent = _without(_TRACEPARENT, block)
            authorization = self._blocks.get(block)
            if authorization is None:
                return None
        return PlainRead(Key.of(namespace, line[2].decode()), traceparent, authorization, end)

    def _batch(self, data: bytes, at: int) -> PlainBatch | None:
        """Does the same for a batch."""
        line = _PLAIN_BATCH(data, at)
        if line is None or (namespace := self._namespaces.get(line[1])) is None:
            return None
        begin = line.end()
        body = data.find(END_OF_HEAD, begin) + len(END_OF_HEAD)
        block, length = _without(_LENGTH, data[begin:body])
        end, traceparent = body + int(length or len(data)), b""
        if end > len(data):
            return None
        known = self._batches.get(block)
        if known is None:
            block, traceparent = _without(_TRACEPARENT, block)
            known = self._batches.get(_without(_TIMEOUT, block, ANY_TIMEOUT)[0])
            if known is None:
                return None
        return PlainBatch(namespace, known[1], data[body:end], traceparent, known[0], end)

    def learn(self, head: bytes, message: RawRequestMessage) -> None:
        """Keeps the header lines of `head`, which was parsed as `message`, if all are inert.

        A `GET` has no body, and that of a `POST` has come as a whole.
        """
        line = _PLAIN_GET(head) or _PLAIN_BATCH(head)
        if line is None or (block := head[line.end() :]) in self._blocks:
            return
        if (
            message.method != head[: head.find(b" ")].decode()
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or message.chunked
            or len(block) > LONGEST_BLOCK
        ):
            return
        block, traceparent = _without(_TRACEPARENT, block)
        if block.lower().count(b"traceparent") > 1:
            return
        if message.method == "GET":
            plain = plain_headers(message.raw_headers, self._hosts.admitted)
            if plain is not None and plain[0] == traceparent:
                _keep(self._blocks, block, plain[1])
        else:
            self._learn_batch(block, traceparent, message)

    def _learn_batch(self, block: bytes, traceparent: bytes, message: RawRequestMessage) -> None:
        more = {name: message.headers.getall(name, []) for name in _OF_BATCHES}
        raw = [pair for pair in message.raw_headers if pair[0].decode("latin-1").title() not in _OF_BATCHES]
        plain = plain_headers(raw, self._hosts.admitted)
        media = media_of(more["Content-Type"][0]) if len(more["Content-Type"]) == 1 else ""
        block, length = _without(_LENGTH, block)
        block, timeout = _without(_TIMEOUT, block, ANY_TIMEOUT)
        changing = more["Content-Length"], more["Cachesvc-Timeout"]
        if (
            plain is not None
            and plain[0] == traceparent
            and media in (JSON, MSGPACK)
            and changing == ([length.decode()], [timeout.decode()] if timeout else [])
        ):
            _keep(self._batches, block, (plain[1], media))


def _without(
    search: Callable[[bytes], re.Match[bytes] | None], block: bytes, instead: bytes = b""
) -> tuple[bytes, bytes]:
    """Returns the block without the value of a well-formed line, and that value.

    `instead` takes its place. The value is empty if there is no such line.
    """
    found = search(block)
    if found is None:
        return block, b""
    return block[: found.start(1)] + instead + block[found.end(1) :], found[1]


def _keep(blocks: dict[bytes, T], block: bytes, known: T) -> None:
    if len(blocks) >= MOST_BLOCKS:
        blocks.clear()
    blocks[block] = known
