"""Request bodies: read within the limit, and decoded by the struct they have to fit."""

import asyncio
import re
from time import perf_counter
from typing import Protocol, TypeVar

import msgspec
from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion11

from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.web.bytes_in_flight import BytesInFlight, Held

JSON = "application/json"
MSGPACK = "application/msgpack"
CLOUDEVENT = "application/cloudevents+json"

T_co = TypeVar("T_co", covariant=True)


class Decodes(Protocol[T_co]):
    """A msgspec decoder of any format."""

    def decode(self, body: bytes, /) -> T_co: ...


_AT = re.compile(r" - at `(?:key in )?(\$[^`]*)`$")
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)`")
_MISSING = re.compile(r"^Object missing required field `([^`]*)`")
_MEDIA_TYPES = {"application/x-msgpack": MSGPACK, "application/vnd.msgpack": MSGPACK}


STOPPED = web.RequestKey("stopped", bool)
"""The mark of a request whose body did not come to its end, or not in time."""
WAITED = web.RequestKey("waited", float)
"""The seconds for which the body of a request was waited for; set if there was a wait."""


async def read_body(
    request: web.BaseRequest, limit: int, in_flight: BytesInFlight, namespace: str = ""
) -> bytes:
    """Returns the whole body. Pieces, if it comes in several, are counted in `in_flight`.

    They count for the namespace, where the request's target names one.

    Raises `RequestError`: `body-too-large` above `limit` bytes, before reading if the length was
    declared; `content-encoding` if it is encoded; `expectation` for an unknown one; `bad-body` if it
    ends early; `overloaded` if too many bytes of bodies are on their way. If it is cancelled, the
    request keeps the mark `STOPPED`. The time that it waited for the body is kept as `WAITED`.
    """
    refuse_encoding(request)
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    await _invite(request)
    content = request.content
    if content.is_eof():
        body = await content.readany()
        if len(body) > limit:
            raise _too_large(limit)
        if content.at_eof():
            return body
        return await _in_pieces(body, content, limit, Held(in_flight, namespace))
    began = perf_counter()
    try:
        return await _in_pieces(b"", content, limit, Held(in_flight, namespace))
    except asyncio.CancelledError:
        request[STOPPED] = True
        raise
    except (web.RequestPayloadError, ConnectionError):
        request[STOPPED] = True
        raise RequestError(
            ProblemKind.BAD_BODY, "the body ended early or is not framed as announced"
        ) from None
    finally:
        request[WAITED] = perf_counter() - began


async def _in_pieces(first: bytes, content: StreamReader, limit: int, room: Held) -> bytes:
    """Returns `first` and the rest of the body, whose bytes are counted."""
    chunks, size = [first] if first else [], len(first)
    with room as held:
        while chunk := await content.readany():
            if chunks:
                held.admit()
                held.take(len(chunk))
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def refuse_encoding(request: web.BaseRequest) -> None:
    """Raises `RequestError` (`content-encoding`) if the body is encoded."""
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() != "identity":
        raise RequestError(
            ProblemKind.CONTENT_ENCODING,
            f"send the bytes as they are, not {coding[:64]!r}",
            field="Content-Encoding",
        )


def media_type_of(request: web.BaseRequest, *taken: str) -> str:
    """Returns the body's media type, one of `taken`. Raises `RequestError` (`content-type`)."""
    sent = media_of(request.headers.get("Content-Type", ""))
    if sent not in taken:
        raise RequestError(
            ProblemKind.CONTENT_TYPE, f"send {' or '.join(taken)}, not {sent[:64]!r}", field="Content-Type"
        )
    return sent


def media_of(content_type: str) -> str:
    """Returns the media type that a `Content-Type` names, by its own name if it has several."""
    sent = content_type.partition(";")[0].strip().lower()
    return _MEDIA_TYPES.get(sent, sent)


def decode(decoder: Decodes[T_co], body: bytes) -> T_co:
    """Returns the decoded document.

    Raises `RequestError`: `bad-body` if the body is no document, `invalid-body` with the field that
    does not fit.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        why = str(error)
        raise RequestError(ProblemKind.INVALID_BODY, why, field=_field_of(why)) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise RequestError(ProblemKind.BAD_BODY, f"the body cannot be decoded: {error}") from None


def _field_of(why: str) -> str:
    """Returns the body path at fault, from msgspec's message: `$.items[...].ttl`."""
    at = match[1] if (match := _AT.search(why)) else "$"
    named = _UNKNOWN.search(why) or _MISSING.search(why)
    return f"{at}.{named[1]}" if named else at


async def _invite(request: web.BaseRequest) -> None:
    """Answers `Expect: 100-continue`, because the body would not come before."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.strip().lower() != "100-continue":
        raise RequestError(ProblemKind.EXPECTATION, "only 100-continue is known", field="Expect")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(limit: int) -> RequestError:
    return RequestError(
        ProblemKind.BODY_TOO_LARGE, f"a body here has at most {limit} bytes", field="Content-Length"
    )
