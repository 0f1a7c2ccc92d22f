"""Doubles of everything that the web layer calls. They record what they were asked."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from cachesvc.changes.audit_trail import AuditTrail
from cachesvc.explain.answer import Explanation, Question, Seen
from cachesvc.model.change import Change, Target
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key, tag_digests_of
from cachesvc.model.errors import RequestError
from cachesvc.model.requests import (
    PLAIN,
    Answer,
    Draft,
    Estimate,
    InvalidateOptions,
    Outcome,
    Reach,
    ReadOptions,
    Receipt,
    ReceiptState,
    Step,
    Written,
)
from cachesvc.telemetry.popularity.hot_keys import HotKeys
from cachesvc.telemetry.traces.trace import traceparent

MISSED = (Step("l3", "uri-miss"), Step("l2", "uri-miss"), Step("l1", "uri-miss"))


class FakeReader:
    """L1 is a dict of entries by key text. `get` returns what is in `answers`, else a miss."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.l1: dict[str, Entry] = {}
        self.answers: dict[str, Answer] = {}
        self.fails_with: Exception | None = None
        self.hangs: asyncio.Event | None = None
        """If set, `get` waits for it."""
        self.asked = asyncio.Event()
        self.saw: list[tuple[str, str, ReadOptions]] = []
        self.traces: list[str] = []
        """The flags of the trace of each call that goes beyond L1, as `traceparent` ends."""
        self.given_back: list[tuple[str, str]] = []
        """Key and lease of the answers that did not reach their callers."""
        self.peeked: list[str] = []
        self.elsewhere = 0
        self.breaks_at = ""
        """The key for which `get` fails with a defect."""
        self._reads: set[asyncio.Task[Answer]] = set()

    def peek(self, namespace: str, key: Key, /) -> Entry | None:
        self.peeked.append(key.text)
        if self.fails_with is not None:
            raise self.fails_with
        entry = self.l1.get(key.text)
        return entry if entry is not None and entry.fresh_until > self.clock.now_us() else None

    def peek_small(self, namespace: str, key: Key, most_bytes: int, /) -> Entry | None:
        entry = self.l1.get(key.text)
        is_small = entry is not None and not entry.negative and len(entry.value) <= most_bytes
        return self.peek(namespace, key) if is_small else None

    def is_beyond_l1(self, key: Key, /) -> bool:
        return key.text not in self.l1

    def peek_many(self, namespace: str, keys: Sequence[Key], /) -> list[Entry | None]:
        return [self.peek(namespace, key) for key in keys]

    def peek_all(self, namespace: str, keys: Sequence[Key], /) -> list[Entry] | None:
        found = [entry for key in keys if (entry := self.peek(namespace, key)) is not None]
        return found if len(found) == len(keys) else None

    def count_hits(self, namespace: str, keys: Sequence[Key], entries: Sequence[Entry], /) -> None:
        assert len(keys) == len(entries)

    def largest(self, namespace: str, /) -> int:
        return max((len(entry.value) for entry in self.l1.values()), default=0)

    def is_due_early(self, namespace: str, entry: Entry, /) -> bool:
        return entry.load_ms > 0

    def waiting_elsewhere(self) -> int:
        return self.elsewhere

    async def get(self, key: Key, options: ReadOptions = PLAIN, /) -> Answer:
        (answer,) = await self.get_many((key,), options)
        return answer

    async def get_many(self, keys: Sequence[Key], options: ReadOptions = PLAIN, /) -> list[Answer]:
        self.saw += [(key.namespace, key.text, options) for key in keys]
        self.traces.append(traceparent()[-3:])
        self.asked.set()
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails_with is not None:
            raise self.fails_with
        return [self._answer(key, options) for key in keys]

    def get_soon(self, key: Key, answered: Callable[[Answer | Exception], None], /) -> None:
        def ended(read: asyncio.Task[Answer]) -> None:
            error = read.exception()
            assert error is None or isinstance(error, Exception)
            answered(error or read.result())

        task = asyncio.ensure_future(self.get(key))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        task.add_done_callback(ended)

    def give_back(self, key: Key, answer: Answer, /) -> None:
        if answer.lease:
            self.given_back.append((key.text, answer.lease))

    def _answer(self, key: Key, options: ReadOptions) -> Answer:
        if key.text == self.breaks_at:
            raise RuntimeError("broken")
        if key.text in self.answers:
            return self.answers[key.text]
        if (entry := self.l1.get(key.text)) is not None and not options.no_cache:
            return Answer(Outcome.ABSENT if entry.negative else Outcome.HIT, entry, "l1")
        return Answer(Outcome.MISS, trail=MISSED, lease="nonce:17" if options.lease else None)


class FakeWriter:
    """Keeps drafts in the reader's L1, except for keys in `outcomes`."""

    def __init__(self, reader: FakeReader) -> None:
        self.reader = reader
        self.outcomes: dict[str, Written] = {}
        self.fails_with: RequestError | None = None
        self.hangs: asyncio.Event | None = None
        self.saw: list[tuple[Key, Draft]] = []
        """The writes; releases are in `released`."""
        self.released: list[tuple[str, str, str]] = []
        """Key, lease and reason of each release."""

    def waiting_elsewhere(self) -> int:
        return 0

    async def put(self, key: Key, draft: Draft, /) -> Written:
        (written,) = await self.put_many([(key, draft)])
        if written.error is not None:
            raise written.error
        return written

    async def put_many(self, items: Sequence[tuple[Key, Draft]], /) -> list[Written]:
        self.saw += [(key, draft) for key, draft in items if draft.release is None]
        self.released += [
            (key.text, draft.lease or "", draft.release.value) for key, draft in items if draft.release
        ]
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails_with is not None:
            raise self.fails_with
        return [self.outcomes.get(key.text) or self._store(key, draft) for key, draft in items]

    def _store(self, key: Key, draft: Draft) -> Written:
        if draft.release is not None:
            return Written(stored=False, reason="released")
        now = self.reader.clock.now_us()
        entry = Entry(
            draft.value,
            now,
            now + (60 * SECONDS if draft.ttl_us is None else draft.ttl_us),
            content_type=draft.content_type,
            tags=draft.tags,
            tag_digests=tag_digests_of(key.namespace, draft.tags),
            negative=draft.negative,
        )
        self.reader.l1[key.text] = entry
        return Written(True, entry=entry, token=((key.digest, now),))


class FakeInvalidator:
    """Empties the reader's L1 of the keys named. Receipts are those in `states`."""

    def __init__(self, reader: FakeReader) -> None:
        self.reader = reader
        self.applied = self.announced = True
        self.missing: tuple[str, ...] = ()
        """The instances that have not merged the fence when `wait` ends."""
        self.fails_with: RequestError | None = None
        self.hangs: asyncio.Event | None = None
        self.states: dict[str, ReceiptState] = {}
        self.saw: list[Change] = []
        self.saw_options: list[InvalidateOptions] = []
        self.estimated: list[Change] = []
        self.token: tuple[tuple[int, int], ...] = ()
        """The token of a receipt; empty: that of the change's targets."""

    async def invalidate(
        self,
        change: Change,
        options: InvalidateOptions = InvalidateOptions(),  # noqa: B008  frozen
        /,
    ) -> Receipt:
        self.saw.append(change)
        self.saw_options.append(options)
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails_with is not None:
            raise self.fails_with
        for key in change.keys:
            self.reader.l1.pop(key, None)
        at = self.reader.clock.now_us()
        missing = () if options.wait is Reach.NONE else self.missing
        token = self.token or tuple((target.digest, at) for target in change.targets())
        return Receipt(
            f"local:{at}-0",
            token,
            self.applied,
            f"{at}-1" if self.announced else "",
            options.wait,
            reached=self.announced and not missing,
            missing=missing,
            announced=self.announced,
        )

    async def estimate(self, change: Change, /) -> Estimate:
        self.estimated.append(change)
        return Estimate(len(self.reader.l1), 0.25, 1000, ("c1",))

    async def receipt(self, id_: str, /) -> ReceiptState | None:
        if self.fails_with is not None:
            raise self.fails_with
        return self.states.get(id_)


class FakeExplainer:
    def __init__(self) -> None:
        self.asked: list[Question] = []

    async def answer(self, key: Key, question: Question, /) -> Explanation | Seen:
        self.asked.append(question)
        return Seen("eu", "a") if question.alone else Explanation("It is not held.", key.text, key.namespace)


class FakeFences:
    def __init__(self) -> None:
        self.lag: int | None = 250_000
        self.watermark = 1
        self.queues = ""

    def lag_us(self, since: int | None = None) -> int | None:
        return None if self.lag is None else self.lag + self.watermark - (since or self.watermark)

    def seen_until(self, entry: Entry) -> int:
        return 0 if entry.confirmed else entry.as_of + 7


class FakeHomes:
    """Home cells, as many and as far as `ways` says, whatever is asked."""

    def __init__(self) -> None:
        self.ways: dict[str, float] = {}
        self.asked: list[str] = []

    def distances(self, targets: Iterable[Target]) -> Mapping[str, float]:
        self.asked = [target.text for target in targets]
        return self.ways


class FakePaths:
    """All of them, on one clock."""

    def __init__(self, clock: Clock) -> None:
        self.reader = FakeReader(clock)
        self.writer = FakeWriter(self.reader)
        self.invalidator = FakeInvalidator(self.reader)
        self.trail = AuditTrail("local", clock, 100, is_logged=False)
        self.explainer = FakeExplainer()
        self.hot_keys = HotKeys(("pages", "users"), clock)
        self.fences = FakeFences()
        self.homes = FakeHomes()
