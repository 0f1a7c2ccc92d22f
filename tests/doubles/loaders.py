"""`ScriptedLoader`: an origin that answers what a test wants, when the test wants it."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable

from msgspec import Struct, structs

from cachesvc.model.entry import Entry, Key
from cachesvc.model.errors import OriginError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.use import EVERY_USE, Use
from cachesvc.tiers.origin.contract import Loaded

Script = Loaded | BaseException | Callable[[Key], Loaded]


def loaded(
    value: bytes = b"value",
    *,
    content_type: str = "application/octet-stream",
    ttl_us: int | None = None,
    stale_for_us: int | None = None,
    error_for_us: int | None = None,
    tags: tuple[str, ...] = (),
    age_us: int = 0,
    use: Use = EVERY_USE,
    etag: str | None = None,
) -> Loaded:
    """An origin's 200. The namespace decides what is left out here."""
    return Loaded(value, content_type, ttl_us, stale_for_us, error_for_us, tags, age_us, use=use, etag=etag)


def absent(*, tags: tuple[str, ...] = (), ttl_us: int | None = None) -> Loaded:
    """An origin's 404."""
    return structs.replace(loaded(b"", tags=tags, ttl_us=ttl_us), absent=True)


def not_modified(*, ttl_us: int | None = None, tags: tuple[str, ...] = (), etag: str | None = None) -> Loaded:
    """An origin's 304."""
    return structs.replace(loaded(b"", tags=tags, ttl_us=ttl_us, etag=etag), not_modified=True)


NO_STORE = Use(keep=False, share=False, directives="no-store")
"""The use of an answer that its origin forbids to keep."""


def unkept(value: bytes = b"value") -> Loaded:
    """An origin's 200 with `no-store`."""
    return loaded(value, ttl_us=0, stale_for_us=0, error_for_us=0, use=NO_STORE)


class Call(Struct, frozen=True):
    """One load, with its arguments."""

    key: Key
    known: Entry | None
    timeout_seconds: float


class ScriptedLoader:
    """An origin that answers each load by the key's script, else by the default.

    It records every call. A script is a `Loaded`, an exception to raise, or a function of the key.
    `script(text, a, b)` answers `a`, then `b`, and then the default again.

    After `hold`, loads wait; `release` lets all of them go. A load takes its script when it is let
    go, so a test may change the script meanwhile. A load that is held past its timeout fails as with
    an origin that hangs.
    """

    def __init__(self, default: Script | None = None) -> None:
        self.default: Script = (
            default if default is not None else (lambda key: loaded(f"value of {key.text}".encode()))
        )
        self.calls: list[Call] = []
        self.running = 0
        self.peak = 0
        self.cancelled = 0
        self.started = 0
        self.stopped = 0
        self._scripts: dict[str, deque[Script]] = defaultdict(deque)
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Event()

    def script(self, text: str, *answers: Script) -> None:
        """Sets what the next loads of this key answer, in order."""
        self._scripts[text].extend(answers)

    def hold(self) -> None:
        """Lets loads wait from now on."""
        self._open.clear()

    def release(self) -> None:
        """Lets all waiting loads go."""
        self._open.set()

    def loads(self, text: str) -> int:
        """The number of loads of this key that were asked for."""
        return sum(call.key.text == text for call in self.calls)

    async def called(self, count: int = 1) -> None:
        """Waits until at least `count` loads of any key were asked for."""
        while len(self.calls) < count:
            self._changed.clear()
            await self._changed.wait()

    async def load(self, key: Key, *, known: Entry | None, timeout_seconds: float) -> Loaded:
        self.calls.append(Call(key, known, timeout_seconds))
        self._changed.set()
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await self._wait_turn(timeout_seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        answer = self._answer(key)
        if answer.not_modified and known is not None:  # a 304 brings the bytes that it validated
            return structs.replace(
                answer, value=known.value, content_type=known.content_type, tags=answer.tags or known.tags
            )
        return answer

    async def _wait_turn(self, timeout_seconds: float) -> None:
        if self._open.is_set():
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._open.wait()
        except TimeoutError as error:
            raise OriginError(
                f"no answer within {timeout_seconds} s", kind=ProblemKind.ORIGIN_TIMEOUT
            ) from error

    def _answer(self, key: Key) -> Loaded:
        waiting = self._scripts.get(key.text)
        script = waiting.popleft() if waiting else self.default
        if isinstance(script, BaseException):
            raise script
        return script if isinstance(script, Loaded) else script(key)

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopped += 1
