"""The document in etcd, over the JSON gateway of its API (v3, etcd 3.4 and later).

    <prefix>/newest              record of the newest version
    <prefix>/hash                its hash: the transaction of a `put` compares it
    <prefix>/records/<number>    records of the versions that are kept, the number with 20 digits
    <prefix>/texts/<number>      their texts

Each member of the cluster answers for all of it; the first one that answers is asked until it does
not. The gateway: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/.
"""

import asyncio
import ssl
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec

from cachesvc.changes.document.contract import (
    HISTORY,
    LARGEST_BYTES,
    ConflictError,
    Document,
    DocumentStore,
    Version,
)
from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError, UnreadableAnswerError
from cachesvc.telemetry.link_faults import told

TIMEOUT_SECONDS = 1.0
"""Time limit of one call to one member."""
LARGEST_ANSWER = 4 * LARGEST_BYTES
PREFIX = "cachesvc"


class EtcdDocument(DocumentStore):
    """The document below one prefix of an etcd cluster."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, keys: Sequence[bytes] = ()) -> None:
        """`url` is `etcd://host:port,host:port/prefix`, or `etcds://…` for TLS."""
        scheme, _, rest = url.partition("://")
        members, _, prefix = rest.partition("/")
        super().__init__(f"etcd {members}", keys)
        http = "https" if scheme == "etcds" else "http"
        self._members = [f"{http}://{member}" for member in members.split(",")]
        self._prefix = prefix.strip("/") or PREFIX
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def newest(self) -> Version | None:
        found = await self._range("newest")
        return self._genuine(self._known(found[0])) if found else None

    async def load(self, number: int | None = None) -> Document | None:
        if number is None:
            newest = await self.newest()
            number = newest.number if newest is not None else 0
        records, texts = await self._range(_at("records", number)), await self._range(_at("texts", number))
        if not records or not texts:
            return None
        try:
            text = texts[0].decode()
        except UnicodeDecodeError as error:
            raise UnreadableAnswerError(self.where, "a text that is not UTF-8") from error
        return Document(self._genuine(self._known(records[0])), text).checked(self.where)

    async def compare_and_set(self, document: Document, expected: Version | None) -> Sequence[TierError]:
        if len(document.text.encode()) > LARGEST_BYTES:
            raise TierError(self.where, f"the document has more than {LARGEST_BYTES >> 20} MiB")
        number, record = document.version.number, msgspec.json.encode(document.version)
        key = self._key("hash")
        is_as_seen = (
            {"key": key, "target": "VERSION", "version": "0"}
            if expected is None
            else {"key": key, "target": "VALUE", "value": _coded(expected.hash.encode())}
        )
        kept = {"newest": record, "hash": document.version.hash.encode(), _at("records", number): record}
        kept[_at("texts", number)] = document.text.encode()
        writes = [{"request_put": {"key": self._key(at), "value": _coded(it)}} for at, it in kept.items()]
        if (oldest := number - HISTORY + 1) > 0:
            writes += [
                {
                    "request_delete_range": {
                        "key": self._key(_at(kind, 0)),
                        "range_end": self._key(_at(kind, oldest)),
                    }
                }
                for kind in ("records", "texts")
            ]
        said = await self._call("txn", {"compare": [is_as_seen], "success": writes})
        if not said.get("succeeded"):
            raise ConflictError(self.where, await self.newest())
        return ()

    async def history(self) -> Sequence[Version]:
        found = await self._range("records/", "records0")  # 0 is the sign after the slash
        return sorted(map(self._known, found), key=lambda one: -one.number)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _key(self, at: str) -> str:
        return _coded(f"{self._prefix}/{at}".encode())

    async def _range(self, at: str, end: str = "") -> Sequence[bytes]:
        """Returns the values of a key, or of all keys from `at` up to `end`."""
        asked = {"key": self._key(at), **({"range_end": self._key(end)} if end else {})}
        said = await self._call("range", asked)
        try:
            return [b64decode(one["value"], validate=True) for one in said.get("kvs", ())]
        except (KeyError, TypeError, ValueError) as error:
            raise UnreadableAnswerError(self.where, "an answer of another form") from error

    def _known(self, record: bytes) -> Version:
        try:
            return msgspec.json.decode(record, type=Version)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnreadableAnswerError(self.where, "a record of another form") from error

    async def _call(self, method: str, asked: object) -> Mapping[str, Any]:
        """Asks the members, one after the other, until one answers. Raises `TierError`."""
        failure: TierError | None = None
        for member in list(self._members):
            try:
                return await self._ask(member, method, asked)
            except TierError as error:
                failure = failure or error
                self._members.append(self._members.pop(self._members.index(member)))
        raise failure or TierUnavailableError(self.where, "it has no members")

    async def _ask(self, member: str, method: str, asked: object) -> Mapping[str, Any]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls or True)
            self._session = aiohttp.ClientSession(connector=connector)
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._session.post(f"{member}/v3/kv/{method}", data=msgspec.json.encode(asked)) as answer,
            ):
                body = await answer.content.read(LARGEST_ANSWER)
                while len(body) < LARGEST_ANSWER and (more := await answer.content.read(LARGEST_ANSWER)):
                    body += more
                status = answer.status
        except TimeoutError as error:
            raise TierTimeoutError(self.where, f"no answer within {TIMEOUT_SECONDS:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TierUnavailableError(self.where, told(error)) from error
        if status != 200:
            raise TierUnavailableError(self.where, f"answered {status}")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise UnreadableAnswerError(self.where, "an answer of another form") from error


def _at(kind: str, number: int) -> str:
    return f"{kind}/{number:020}"


def _coded(value: bytes) -> str:
    return b64encode(value).decode()
