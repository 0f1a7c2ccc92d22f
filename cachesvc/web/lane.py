"""The fast lane: plain reads that are known by the bytes of their requests.

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
"""

import re
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias

from aiohttp.http import HttpVersion11, RawRequestMessage
from msgspec import Struct

from cachesvc.model.entry import Key
from cachesvc.web.replies.reply import Reply
from cachesvc.web.requests.hosts import Hosts
from cachesvc.web.requests.options import plain_headers
from cachesvc.web.routing import PLAIN_PATH

MOST_BLOCKS = 1024
"""The most blocks that are known; with one more, all are forgotten."""
LONGEST_BLOCK = 2048
"""The bytes of a block that is still worth to be known."""
END_OF_HEAD = b"\r\n\r\n"

_PLAIN_GET = re.compile(rb"GET %b HTTP/1\.1\r\n" % PLAIN_PATH.encode()).match
_TRACEPARENT = re.compile(rb"\n[Tt]raceparent: (00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})\r\n").search


class PlainRead(Struct, frozen=True, gc=False):
    """A plain read, as its bytes say it."""

    key: Key
    traceparent: bytes
    """The value of the header; empty without one. `authorization` likewise."""
    authorization: bytes
    end: int
    """The place behind its last byte."""


class Waits(Protocol):
    """A connection that waits for the answer to a plain read, which goes on beyond L1."""

    def has_left(self) -> bool:
        """True if the peer has gone, or sends no more and may have gone."""
        ...

    def take(self, reply: Reply) -> None:
        """Takes the answer. Called once, not within the call that began the read."""
        ...


Answering: TypeAlias = Callable[[PlainRead, int, Waits], bytes | None]
"""Returns the whole answer to a read, if it may be given now.

Empty if it comes later; None if it is for aiohttp's way. The number is the most bytes that a value
may have that L1 has.
"""


class Lane:
    """The fast lane of one port. Used on the event loop only."""

    def __init__(self, answer: Answering, namespaces: Collection[str], hosts: Hosts) -> None:
        """`namespaces` are the declared ones."""
        self.answer = answer
        self._namespaces = {name.encode(): name for name in namespaces}
        self._hosts = hosts
        self._blocks: dict[bytes, bytes] = {}
        """Block of header lines without the value of `traceparent` → value of `Authorization`."""

    def __repr__(self) -> str:
        return f"<Lane [{len(self._blocks)} blocks known]>"

    def read(self, data: bytes, at: int) -> PlainRead | None:
        """Returns the plain read that stands at this place; None if it is not known to be one."""
        line = _PLAIN_GET(data, at)
        if line is None or (namespace := self._namespaces.get(line[1])) is None:
            return None
        begin = line.end()
        end = data.find(END_OF_HEAD, begin) + len(END_OF_HEAD)
        block, traceparent = data[begin:end], b""
        authorization = self._blocks.get(block)
        if authorization is None:
            block, traceparent = _without_traceparent(block)
            authorization = self._blocks.get(block)
            if authorization is None:
                return None
        return PlainRead(Key.of(namespace, line[2].decode()), traceparent, authorization, end)

    def learn(self, head: bytes, message: RawRequestMessage) -> None:
        """Keeps the header lines of `head`, which was parsed as `message`, if all are inert.

        The request has no body.
        """
        line = _PLAIN_GET(head)
        if line is None or head[line.end() :] in self._blocks:
            return
        if (
            message.method != "GET"
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or len(head) - line.end() > LONGEST_BLOCK
        ):
            return
        plain = plain_headers(message.raw_headers, self._hosts.admitted)
        block, traceparent = _without_traceparent(head[line.end() :])
        if plain is None or plain[0] != traceparent or block.lower().count(b"traceparent") > 1:
            return
        if len(self._blocks) >= MOST_BLOCKS:
            self._blocks.clear()
        self._blocks[block] = plain[1]


def _without_traceparent(block: bytes) -> tuple[bytes, bytes]:
    """Returns the block without the value of its well-formed `traceparent`, and that value."""
    found = _TRACEPARENT(block)
    if found is None:
        return block, b""
    return block[: found.start(1)] + block[found.end(1) :], found[1]
