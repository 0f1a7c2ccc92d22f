"""The contract of a document store: versions of a text, each in place of the one before.

    put       a writer says which version it has seen; if another one stands there, nothing changes
    watch     a reader says which version it has; it is given the one that takes its place
    away      a store that does not answer changes nothing for its readers

Every version has a number above the one before it, and the hash of its text: a reader takes no text
whose hash is another one. With keys, records are sealed, and a reader takes no other record.
`tests/contracts/test_document_stores.py` is the contract as tests.
"""

import asyncio
import hashlib
import hmac
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cachesvc.model.errors import CachesvcError, TierError, UnreadableAnswerError
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""The pause between two looks of a watch."""
HISTORY = 30
"""The versions that a store keeps; older ones are dropped."""
LARGEST_BYTES = 1 << 20
"""The bytes of the largest document that a numbered store takes."""
LONGEST_AUTHOR, LONGEST_REASON = 128, 500
"""Characters of an author, and of a reason."""


class Version(Struct, frozen=True):
    """The record of one version of the document."""

    number: int
    """The document's own `version`; 0 if it has none that can be read."""
    hash: str
    """The SHA-256 of the text, in hexadecimal digits."""
    author: str = ""
    """The name of the person or program that put it there; empty if nobody said."""
    at_us: int = 0
    """When it was put there, µs since 1970."""
    reason: str = ""
    seal: str = ""
    """The HMAC of all this under a key of the deployment, in hexadecimal digits.

    Empty: it is not sealed."""

    def sealed(self, key: bytes) -> "Version":
        """Returns the record with the seal of this key."""
        return replace(self, seal=self._seal_of(key))

    def is_sealed(self, keys: Sequence[bytes]) -> bool:
        """True if one of the keys has sealed it, or if there are no keys."""
        return not keys or any(hmac.compare_digest(self.seal, self._seal_of(key)) for key in keys)

    def _seal_of(self, key: bytes) -> str:
        return hmac.new(key, msgspec.json.encode(replace(self, seal="")), "sha256").hexdigest()

    def __str__(self) -> str:
        by = f" by {self.author}" if self.author else ""
        return f"version {self.number} ({self.hash[:12]}{by})"


class Document(Struct, frozen=True):
    """A text with the record of its version."""

    version: Version
    text: str

    @classmethod
    def of(
        cls,
        text: str,
        number: int,
        *,
        author: str = "",
        at_us: int = 0,
        reason: str = "",
        keys: Sequence[bytes] = (),
    ) -> "Document":
        """Returns the text as this version, with its hash, sealed by the first of the keys."""
        version = Version(number, digest(text), author[:LONGEST_AUTHOR], at_us, reason[:LONGEST_REASON])
        return cls(version.sealed(keys[0]) if keys else version, text)

    def checked(self, where: str) -> "Document":
        """Returns the document itself. Raises `UnreadableAnswerError` if the hash is another one."""
        if digest(self.text) != self.version.hash:
            why = f"the text of version {self.version.number} does not have the hash of its record"
            raise UnreadableAnswerError(where, why)
        return self


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ConflictError(CachesvcError):
    """Another version stands there than the writer has seen; nothing was changed there."""

    def __init__(self, where: str, found: Version | None) -> None:
        super().__init__(f"{where}: {found or 'no document'} stands there")
        self.where = where
        self.found = found


class DocumentStore(ABC):
    """Where the document is kept. One task watches at a time; other calls may overlap."""

    def __init__(self, where: str, keys: Sequence[bytes] = ()) -> None:
        """`where` names the store in errors and log lines.

        With `keys`, records that none of them has sealed are errors.
        """
        self.where = where
        self._keys = keys
        self._trouble = ""
        self.seen: Version | None = None
        """The version that the last look found; None if it found none, or had no answer."""
        self.is_away = True
        """True if the last look had no answer."""
        self._said = "not asked yet"
        self._outage = Outage(f"asking {where} for the topology document", log)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where} [{self._said}]>"

    @property
    def trouble(self) -> str:
        """A sentence about a state that needs a person; empty if there is none."""
        return self._trouble

    @property
    def said(self) -> Mapping[str, str]:
        """The newest version in each place of the store, as the last look found it, for people."""
        return {self.where: self._said}

    @abstractmethod
    async def newest(self) -> Version | None:
        """Returns the version that stands there; None if there is none. Raises `TierError`."""

    @abstractmethod
    async def load(self, number: int | None = None) -> Document | None:
        """Returns the newest document, or the version of this number from the history.

        None if there is none. Its hash is that of its record. Raises `TierError`.
        """

    @abstractmethod
    async def compare_and_set(self, document: Document, expected: Version | None) -> Sequence[TierError]:
        """Puts the document in place of `expected` (None: there is none yet).

        Its number must be above that of `expected`. Returns the failures of those places of the store
        that did not take it, while others did. Raises `ConflictError` if another version stands there,
        and `TierError` if the store does not answer: then it may have been put there, or not.
        """

    @abstractmethod
    async def history(self) -> Sequence[Version]:
        """Returns the versions that are kept, the newest first. Raises `TierError`."""

    async def look(self, known: Version | None) -> Document | None:
        """Returns the document that takes the place of `known`.

        None if there is none, or no answer. `said` and `trouble` tell what was found.
        """
        try:
            self.seen = newest = await self.newest()
            self._said = str(newest or "no document")
            self.is_away, self._trouble = False, ""
            found = await self.load(newest.number) if newest and self._follows(newest, known) else None
        except TierError as error:
            self._failed(error)
            return None
        if self._outage.is_on:
            self._outage.worked()
        return found

    async def watch(self, known: Version | None) -> Document:
        """Waits for the document that takes the place of `known`, and returns it."""
        return await looked(lambda: self.look(known))

    def seed(self, number: int) -> Version | None:
        """Returns what a reader knows who has a document of this number that came from elsewhere.

        It takes the store's own of the same number, and none below it.
        """
        return Version(number - 1, "")

    def accepted(self, document: Document) -> None:  # noqa: B027  most stores need not know
        """Is told of a document that an instance has found right, and works under."""

    async def close(self) -> None:  # noqa: B027  a file has no connections
        """Ends the connections."""

    def _genuine(self, version: Version) -> Version:
        """Returns the record. Raises `UnreadableAnswerError` if none of the keys has sealed it."""
        if not version.is_sealed(self._keys):
            why = (
                f"version {version.number} is not sealed by a key of `document.keys`: somebody else wrote it"
            )
            raise UnreadableAnswerError(self.where, why)
        return version

    def _follows(self, newest: Version, known: Version | None) -> bool:
        """True if `newest` takes the place of `known`. Notes two documents of one number."""
        if known is None or newest.number > known.number:
            return True
        if newest.number == known.number and newest.hash != known.hash:
            self._trouble = two_of_one_number(known, {self.where: newest})
        return False

    def _failed(self, error: TierError) -> None:
        self.seen, self.is_away = None, True
        self._said = f"out of reach: {error.why}"
        if isinstance(error, UnreadableAnswerError):
            self._trouble = str(error)
        self._outage.failed(error)


async def looked(look: Callable[[], Awaitable[Document | None]]) -> Document:
    """Looks until there is a document, with a pause between two looks."""
    while (found := await look()) is None:  # noqa: ASYNC110  what is looked at is far
        await asyncio.sleep(LOOK_SECONDS)
    return found


def two_of_one_number(known: Version, others: Mapping[str, Version]) -> str:
    """Returns the sentence about documents that share a number, each with where it stands."""
    found = "; ".join(f"{where} has {version}" for where, version in others.items())
    return (
        f"two topology documents have number {known.number}: here is {known}, {found}. "
        "Neither takes the other's place: put a next version (cachesvc topology put)"
    )
