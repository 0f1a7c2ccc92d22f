"""`POST /v1/{ns}:get` and `:put`: many keys in one request, with an outcome for each.

L1 is asked in one synchronous loop. Only the keys that it does not answer go on to `get_many`,
together, or in portions if their values may be too large for one answer (`../portions.py`).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
from aiohttp import web
from msgspec.structs import replace

from cachesvc.config.service import Server
from cachesvc.config.topology import Namespace
from cachesvc.model.caller import Caller
from cachesvc.model.change import Target
from cachesvc.model.clock import SECONDS, Clock
from cachesvc.model.entry import Entry, Key, Keys
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import PLAIN, Answer, Draft, Outcome, ReadOptions, Release, Written
from cachesvc.model.scope import Action
from cachesvc.telemetry.metrics.request_counts import Counts
from cachesvc.web.access.door import grant_of
from cachesvc.web.bytes_in_flight import BytesInFlight, Held
from cachesvc.web.contract import Paths
from cachesvc.web.lane import PlainBatch
from cachesvc.web.messages import OCTETS, GetMany, Got, GotMany, Put, PutItem, PutMany, PutResults
from cachesvc.web.overload import Overload
from cachesvc.web.portions import Portions, Room
from cachesvc.web.rates import RateLimits
from cachesvc.web.replies.problems import HURRIED, TYPE_PREFIX, UNEXPLAINED, problem_of
from cachesvc.web.replies.rendering import is_media_type
from cachesvc.web.replies.reply import JOIN_UP_TO, Reply
from cachesvc.web.requests.bodies import JSON, MSGPACK, Decodes, decode, media_type_of, read_body
from cachesvc.web.requests.limits import check_count, check_tag_count, value_refusal
from cachesvc.web.requests.options import (
    UNLEASED_LAG,
    duration_us_of,
    is_answered_by_any_fresh_copy,
    is_below,
    lag_us_of,
    options_of,
    wait_of,
)
from cachesvc.web.requests.tokens import merged, read_token, write_token
from cachesvc.web.routing import Place, check_tags, key_of, keys_of
from cachesvc.web.spans import of_batch

_GET_DECODERS: dict[str, Decodes[GetMany]] = {
    JSON: msgspec.json.Decoder(GetMany),
    MSGPACK: msgspec.msgpack.Decoder(GetMany),
}
_PUT_DECODERS: dict[str, Decodes[PutMany]] = {
    JSON: msgspec.json.Decoder(PutMany),
    MSGPACK: msgspec.msgpack.Decoder(PutMany),
}
PATIENCE_SECONDS = 1.0
"""The longest wait of a portion of large values until others have come."""
ROOM_PART = 4
"""A portion takes this part of the room that is left at most: others find some, too."""
_ENCODE = {JSON: msgspec.json.Encoder().encode_into, MSGPACK: msgspec.msgpack.Encoder().encode_into}
_spare = bytearray()
"""Holds the last answer that was encoded.

A buffer that grows from nothing for each answer is copied many times.
"""


class Batches:
    """The handlers of the two batch calls."""

    def __init__(
        self,
        limits: Server,
        namespaces: Mapping[str, Namespace],
        paths: Paths,
        clock: Clock,
        counts: Counts,
        overload: Overload,
        in_flight: BytesInFlight,
        fair_seconds: float,
        rates: RateLimits,
    ) -> None:
        """`overload` is told which requests wait for their body, and how many keys they have.

        A deadline below `fair_seconds` that is not kept is the caller's haste.
        """
        self._fair_seconds = fair_seconds
        self._rates = rates
        self._overload = overload
        self._in_flight = in_flight
        self._portions = Portions()
        self._limits = limits
        self._namespaces = namespaces
        self._reader = paths.reader
        self._writer = paths.writer
        self._fences = paths.fences
        self._spread = paths.hot_keys.spread
        self._clock = clock
        self._counts = counts

    async def get_many(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers `:get`. Raises `RequestError` only if the request as a whole is out of rule."""
        media = media_type_of(request, MSGPACK, JSON)
        asked = decode(_GET_DECODERS[media], await self._body(request, place))
        check_count(len(asked.keys), self._limits, "$.keys")
        self._overload.weigh(place.namespace, len(asked.keys))
        options = self._options(request, asked)
        keys = keys_of(place.namespace, asked.keys, "$.keys")
        grant = grant_of(request)
        grant.require_keys(Action.READ, place.namespace, asked.keys, "$.keys")
        if options.lease:
            grant.require_keys(Action.WRITE, place.namespace, asked.keys, "$.keys")
        return await self._answered(media, keys, options, grant.caller)

    async def _answered(self, media: str, keys: Keys, options: ReadOptions, caller: Caller) -> Reply:
        """Reads the keys and returns the reply. Raises `RequestError` (`overloaded`)."""
        namespace = keys.namespace
        # No value was judged before now. Of changes that are merged from here on, some were not.
        watermark, queues = self._fences.watermark, self._fences.queues
        room = Room(self._limits.max_answer)
        results, missing = self._from_l1(namespace, keys, options, room)
        if self._rates.is_on:
            missing = self._within_rates(self._rates, namespace, caller, results, missing)
        granted: list[tuple[Key, Answer]] = []
        try:
            if missing:
                await self._from_beyond(namespace, list(keys), missing, options, room, results, granted)
            outcomes: list[str] = [result.outcome for result in results]
            if self._rates.is_on:
                size = sum(len(results[i].value) for i in missing)
                self._rates.charge_bytes(namespace, size, caller)
            if room.is_short or ((missing or self._rates.is_on) and "error" in outcomes):
                is_hurried = is_below(options, self._fair_seconds)
                outcomes = [_counted(result, is_hurried=is_hurried) for result in results]
            if self._spread.hot:
                self._tell_spread(keys, results)
            self._admit(namespace, media, results)
            reply = self._got_reply(media, results, watermark, queues)
        except BaseException:
            self._give_back(granted)
            raise
        self._note_outcomes(reply, keys, outcomes, missing)
        reply.has_waited = options.wait_seconds > 0
        if granted:
            reply.undelivered = partial(self._give_back, granted)
        return reply

    def plain_keys(self, batch: PlainBatch) -> Keys | None:
        """Returns the keys of a plain batch whose body asks for nothing else.

        Else None: `get_many` answers it, and refuses it if it is out of rule.
        """
        try:
            asked = decode(_GET_DECODERS[batch.media], batch.body)
            check_count(len(asked.keys), self._limits, "$.keys")
            keys = keys_of(batch.namespace, asked.keys, "$.keys")
        except RequestError:
            return None
        if asked.token or asked.max_lag or asked.lease or len(batch.body) > self._limits.max_body:
            return None
        return keys if keys else None

    async def get_plainly(self, batch: PlainBatch, keys: Keys, caller: Caller) -> Reply:
        """Answers a plain batch of these keys, as `get_many` does.

        Raises `RequestError` (`overloaded`).
        """
        self._overload.weigh(batch.namespace, len(keys))
        return await self._answered(batch.media, keys, self.options_of_plain(batch), caller)

    def options_of_plain(self, batch: PlainBatch) -> ReadOptions:
        """Returns the options of a plain batch: its timeout, if it has one."""
        if not batch.timeout:
            return PLAIN
        seconds = duration_us_of(batch.timeout.decode(), "Cachesvc-Timeout") / SECONDS
        return ReadOptions(timeout_seconds=min(seconds, self._limits.request_timeout.seconds))

    def hit(self, batch: PlainBatch, keys: Keys, caller: Caller, most_bytes: int) -> Reply | None:
        """Returns the reply to a plain batch of these keys if L1 answers all of it.

        `most_bytes`: those of the answer without its head. Else None, and nothing is counted. Raises
        `RequestError` (`overloaded`).
        """
        namespace = batch.namespace
        most_bytes = min(most_bytes, self._limits.max_answer)
        entries = self._reader.peek_all(namespace, keys)
        if entries is None or (
            len(keys) * self._reader.largest(namespace) > most_bytes
            and sum(len(entry.value) for entry in entries) > most_bytes
        ):
            return None
        now_us = self._clock.now_us()
        results = [_fresh(entry, now_us) for entry in entries]
        if self._spread.hot:
            self._tell_spread(keys, results)
        reply = self._got_reply(batch.media, results, self._fences.watermark, self._fences.queues)
        if len(reply.payload) > most_bytes:
            return None
        with self._overload.admit(namespace, caller):
            self._overload.weigh(namespace, len(keys))
            self._reader.count_hits(namespace, keys, entries)
            outcomes: list[str] = [result.outcome for result in results]
            if self._rates.is_on:
                self._within_rates(self._rates, namespace, caller, results, [])
                if any(result.outcome == "error" for result in results):
                    outcomes = [_counted(result, is_hurried=False) for result in results]
                    reply = self._got_reply(batch.media, results, self._fences.watermark, self._fences.queues)
        self._note_outcomes(reply, keys, outcomes)
        return reply

    def _got_reply(self, media: str, results: list[Got], watermark: int, queues: str) -> Reply:
        lag_us = self._fences.lag_us(watermark)
        reply = _reply(media, GotMany(results, None if lag_us is None else lag_us / SECONDS, queues))
        reply.watermark = watermark
        return reply

    def _note_outcomes(
        self, reply: Reply, keys: Keys, outcomes: Sequence[str], missing: Sequence[int] = ()
    ) -> None:
        """Counts the keys; the reply's span and its costs are those of these keys."""
        self._counts.keys(keys.namespace, "get_many", outcomes)
        reply.concerns = partial(_targets_of, keys, missing)
        reply.attributes = partial(of_batch, outcomes, reading=True)

    def _within_rates(
        self, rates: RateLimits, namespace: str, caller: Caller, results: list[Got], missing: list[int]
    ) -> list[int]:
        """Charges the keys to the rates, and fills in the results of those that are refused.

        Returns the places that may be asked beyond L1: the first ones of `missing`.
        """
        if not missing:
            hits: Sequence[int] = range(len(results))
            sizes = [len(result.value) for result in results]
        else:
            asked = set(missing)
            hits = [i for i in range(len(results)) if i not in asked]
            sizes = [len(results[i].value) for i in hits]
        for i, refusal in rates.check_hits(namespace, sizes, caller).items():
            results[hits[i]] = Got("error", problem=problem_of(refusal))
        if not missing:
            return missing
        admitted, error = rates.admit("reads", namespace, len(missing), caller)
        if error is not None:
            refused = Got("error", problem=problem_of(error))
            for i in missing[admitted:]:
                results[i] = refused
        return missing[:admitted]

    def _tell_spread(self, keys: Sequence[Key], results: Sequence[Got]) -> None:
        """Tells the readers of hot keys over how many instances to spread them.

        Only values that may be kept are worth a copy in each of these instances.
        """
        now_us = self._clock.now_us()
        for key, result in zip(keys, results, strict=True):
            if key.digest in self._spread.hot and result.as_of and result.keep:
                result.spread = self._spread.of(key.digest, now_us)

    def _admit(self, namespace: str, media: str, results: Sequence[Got]) -> None:
        """Raises `RequestError` (`overloaded`) if there is no room for an answer that is large.

        Without room it must not be encoded, which takes as much again: the requests of one turn of the
        loop would each have an encoded answer before the first of them is closed. Values are added up
        only where the largest answer would have no room.
        """
        if self._in_flight.has_room(_encoded_bytes(media, self._limits.max_answer), namespace):
            return
        size = _encoded_bytes(media, sum(len(result.value) for result in results))
        if size > JOIN_UP_TO:
            self._in_flight.admit(size, namespace)

    async def _from_beyond(
        self,
        namespace: str,
        keys: Sequence[Key],
        missing: Sequence[int],
        options: ReadOptions,
        room: Room,
        results: list[Got],
        granted: list[tuple[Key, Answer]],
    ) -> None:
        """Fills in the results of the keys at the places `missing`, in portions that fit `room`.

        The answers with a lease are added to `granted`. Raises `RequestError` (`overloaded`) if no bytes
        of more values may be gathered in this process.
        """
        contract, began = self._namespaces[namespace], asyncio.get_running_loop().time()
        asked = 0
        with Held(self._in_flight, namespace) as held:
            while asked < len(missing) and room.is_open:
                width = await self._width(namespace, contract, len(missing) - asked, room.left)
                if not width:
                    if not asked:
                        raise self._in_flight.refusal()
                    break
                portion = missing[asked : asked + width]
                held.expect(self._portions.bytes_of(namespace, contract, len(portion)))
                left = _left_of(options, asyncio.get_running_loop().time() - began) if asked else options
                asked += len(portion)
                asking = keys if len(portion) == len(keys) else [keys[i] for i in portion]
                answers = await self._reader.get_many(asking, left)
                sizes = [len(answer.entry.value) for answer in answers if answer.entry is not None]
                self._portions.learn(namespace, contract, sizes)
                held.came(sum(sizes))
                is_all = room.takes_all(sizes)
                self._note(keys, portion, answers, options, None if is_all else room, results, granted)
        for i in missing[asked:]:
            results[i], room.is_short = _NO_ROOM, True

    async def _width(self, namespace: str, contract: Namespace, keys: int, left: int) -> int:
        """Returns how many of the keys to ask for now, if values of `left` bytes may be answered.

        They take a part of the room that is left in this process. 0 if there is none, even after a wait.
        Keys whose values are expected to be small are asked for in any case.
        """
        portions, in_flight = self._portions, self._in_flight
        width = min(keys, portions.keys_at_once(namespace, contract, left))
        if portions.bytes_of(namespace, contract, width) <= JOIN_UP_TO:
            return width
        until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            share = min(left, max(0, in_flight.free_for(namespace)) // ROOM_PART)
            width = min(keys, portions.keys_at_once(namespace, contract, share))
            if in_flight.may_expect(portions.bytes_of(namespace, contract, width), namespace):
                return width
            seconds = until - asyncio.get_running_loop().time()
            if not (in_flight.expected and seconds > 0 and await in_flight.turn(seconds)):
                return 0

    def _note(
        self,
        keys: Sequence[Key],
        places: Sequence[int],
        answers: Sequence[Answer],
        options: ReadOptions,
        room: Room | None,
        results: list[Got],
        granted: list[tuple[Key, Answer]],
    ) -> None:
        """Fills in the results at these places; values that `room` does not take are left out.

        Without a `room` all have their place. It runs for each key of each batch: every call in it counts.
        """
        now_us, seen_us = self._clock.now_us(), 0
        for i, answer in zip(places, answers, strict=True):
            entry = answer.entry
            if room is not None and not room.takes(entry):
                self._reader.give_back(keys[i], answer)
                results[i] = _NO_ROOM
                continue
            if answer.lease:
                granted.append((keys[i], answer))
            if answer.tier in _NEAR and answer.outcome is not Outcome.STALE and entry is not None:
                got = _fresh(entry, now_us, answer.tier)  # what `_got` returns for it
            else:
                got = _got(answer, now_us)
            results[i] = got
            if entry is not None:
                if not entry.confirmed:
                    # One time for all: none of these answers was judged later than now.
                    got.seen = seen_us = seen_us or self._fences.seen_until(entry)
                if answer.unmet:
                    got.unmet = True
                if options.lease and answer.outcome in (Outcome.HIT, Outcome.ABSENT):
                    got.early = self._reader.is_due_early(keys[i].namespace, entry)

    def _give_back(self, granted: Sequence[tuple[Key, Answer]]) -> None:
        for key, answer in granted:
            self._reader.give_back(key, answer)

    async def _body(self, request: web.BaseRequest, place: Place) -> bytes:
        with self._overload.reading:
            return await read_body(request, self._limits.max_body, self._in_flight, place.namespace)

    def _from_l1(
        self, namespace: str, keys: Sequence[Key], options: ReadOptions, room: Room
    ) -> tuple[list[Got], list[int]]:
        """Returns the results, and the slots that are still to be filled and hold a placeholder.

        It runs for each key of each batch: every call in it counts. If L1 answers all, values are
        measured only if the largest one that it kept, times the keys, has no room.
        """
        if not is_answered_by_any_fresh_copy(options):
            return [_NOTHING] * len(keys), list(range(len(keys)))
        entries = self._reader.peek_many(namespace, keys)
        missing = [i for i, entry in enumerate(entries) if entry is None]
        if len(missing) == len(keys):
            return [_NOTHING] * len(keys), missing
        now_us = self._clock.now_us()
        results = [_NOTHING if entry is None else _fresh(entry, now_us) for entry in entries]
        if options.lease:
            for entry, result in zip(entries, results, strict=True):
                if entry is not None and entry.load_ms:
                    result.early = self._reader.is_due_early(namespace, entry)
        if missing or len(keys) * self._reader.largest(namespace) > room.left:
            results = [
                result if room.takes(entry) else _NO_ROOM
                for entry, result in zip(entries, results, strict=True)
            ]
        return results, missing

    def _options(self, request: web.BaseRequest, asked: GetMany) -> ReadOptions:
        """Returns the options of the headers, with those of the body over them."""
        longest = self._limits.request_timeout.seconds
        options = options_of(request.headers, longest)
        if asked.token:
            token = merged((*options.token, *read_token(asked.token, "$.token")), "$.token")
            options = replace(options, token=token)
        if asked.max_lag:
            options = replace(options, max_lag_us=lag_us_of(asked.max_lag, "$.max_lag"))
        if asked.lease:
            options = replace(options, lease=True, wait_seconds=wait_of(asked.wait, longest))
        return options

    async def put_many(self, request: web.BaseRequest, place: Place) -> Reply:
        """Answers `:put`. Raises `RequestError` only if the request as a whole is out of rule."""
        media = media_type_of(request, MSGPACK, JSON)
        asked = decode(_PUT_DECODERS[media], await self._body(request, place))
        check_count(len(asked.items), self._limits, "$.items")
        self._overload.weigh(place.namespace, len(asked.items))
        contract = self._namespaces[place.namespace]
        items = [
            (key_of(place.namespace, item.key, f"$.items[{i}].key"), _draft(item, i, contract))
            for i, item in enumerate(asked.items)
        ]
        grant_of(request).require_keys(
            Action.WRITE, place.namespace, [item.key for item in asked.items], "$.items"
        )
        refusals = [value_refusal(len(draft.value), contract, "value") for _, draft in items]
        if self._rates.is_on:
            caller = grant_of(request).caller
            self._refuse_beyond_rates(self._rates, place.namespace, caller, items, refusals)
        results = [_STORED if refusal is None else _failed(refusal) for refusal in refusals]
        writing: list[tuple[int, tuple[Key, Draft]]] = []
        for i, (key, draft) in enumerate(items):
            if (refusal := refusals[i]) is None:
                writing.append((i, (key, draft)))
            elif draft.lease:
                writing.append((i, (key, Draft(b"", lease=draft.lease, release=_reason(refusal)))))
        written = await self._writer.put_many([item for _, item in writing]) if writing else []
        for (i, _), one in zip(writing, written, strict=True):
            if refusals[i] is None:
                results[i] = _put(one)
        outcomes = [result.outcome for result in results]
        self._counts.keys(place.namespace, "put_many", outcomes)
        token = write_token(merged((pair for one in written for pair in one.token), "token"))
        reply = _reply(media, PutResults(results, token))
        reply.attributes = partial(of_batch, outcomes, reading=False)
        reply.concerns = partial(_targets_of, [key for _, (key, _) in writing], range(len(writing)))
        return reply

    @staticmethod
    def _refuse_beyond_rates(
        rates: RateLimits,
        namespace: str,
        caller: Caller,
        items: Sequence[tuple[Key, Draft]],
        refusals: list[RequestError | None],
    ) -> None:
        """Charges the writes to the rates, and fills in the refusals of the last ones.

        Releases are free, and so is what is refused already.
        """
        writes = [i for i, (_, draft) in enumerate(items) if refusals[i] is None and draft.release is None]
        if not writes:
            return
        admitted, error = rates.admit("writes", namespace, len(writes), caller)
        for i in writes[admitted:]:
            refusals[i] = error
        rates.charge_bytes(namespace, sum(len(items[i][1].value) for i in writes[:admitted]), caller)


def _targets_of(keys: Sequence[Key], places: Iterable[int]) -> Iterator[Target]:
    """Yields the keys at these places as targets."""
    for place in places:
        yield Target.key(keys[place].namespace, keys[place].text)


def _reason(refusal: RequestError) -> Release:
    """Returns why the lease of a refused fill is given back."""
    return Release.FAILED if refusal.kind is ProblemKind.RATE_LIMITED else Release.UNKEPT


_NOTHING = Got("miss")
_LATE = TYPE_PREFIX + ProblemKind.DEADLINE.value
_RATE_LIMITED = TYPE_PREFIX + ProblemKind.RATE_LIMITED.value
_NO_ROOM = Got(
    "error",
    problem=problem_of(
        RequestError(ProblemKind.ANSWER_FULL, "the answer had no room for this key: ask for it again")
    ),
)
_STORED = Put("stored")
_FENCED = Put("fenced")
_RELEASED = Put("released")


_NEAR = frozenset(("l1", "l2", "l3"))
"""The tiers. Their answers have no lease unless they are stale, and may be kept."""


def _fresh(entry: Entry, now_us: int, tier: str = "l1") -> Got:
    """Returns the result for a fresh copy from this tier."""
    as_of, content_type = entry.as_of, entry.content_type
    return Got(
        "absent" if entry.negative else "hit",
        entry.value,
        tier,
        (now_us - as_of) // SECONDS if now_us > as_of else 0,
        (entry.fresh_until - now_us) // SECONDS,
        as_of,
        # The default is left out of the answer only if it is the very object.
        OCTETS if content_type == OCTETS else content_type,
        entry.tags,
    )


def _counted(result: Got, *, is_hurried: bool) -> str:
    """Returns the outcome under which a key is counted.

    What the answer has no room for is no error, nor what a rate refuses, nor what an impatient caller
    did not wait for.
    """
    if result is _NO_ROOM:
        return "full"
    if result.problem is not None and result.problem.type == _RATE_LIMITED:
        return "refused"
    if is_hurried and result.problem is not None and result.problem.type == _LATE:
        return HURRIED
    return result.outcome


def _got(answer: Answer, now_us: int) -> Got:
    entry = answer.entry
    if answer.outcome is Outcome.ERROR:
        return Got("error", problem=problem_of(answer.error or UNEXPLAINED))
    if entry is None:
        return Got("miss", lease=answer.lease or "", unkept=answer.unkept)
    got = _fresh(entry, now_us)
    if answer.outcome is not Outcome.HIT:
        got.outcome = answer.outcome.value  # type: ignore[assignment]  # mypy sees a str, not an Outcome's
        if answer.outcome is Outcome.STALE:  # also where a soft fence came before the end of its time
            got.ttl = min(got.ttl, -1)
    got.tier, got.lease = answer.tier, answer.lease or ""
    if not answer.use.keep:
        # Clients that do not know `keep` keep nothing without freshness.
        got.keep, got.ttl = False, min(got.ttl, 0)
    return got


def _left_of(options: ReadOptions, seconds: float) -> ReadOptions:
    """Returns the options for what is asked `seconds` after the request came."""
    timeout = options.timeout_seconds
    return replace(
        options,
        wait_seconds=max(options.wait_seconds - seconds, 0.0),
        timeout_seconds=None if timeout is None else max(timeout - seconds, 0.0),
    )


def _draft(item: PutItem, index: int, contract: Namespace) -> Draft:
    """Returns the draft of an item. Raises `RequestError` with the wrong field's body path."""
    here = f"$.items[{index}]"
    if not is_media_type(item.content_type):
        raise RequestError(
            ProblemKind.INVALID_BODY,
            "not a media type, such as application/json",
            field=f"{here}.content_type",
        )
    check_tag_count(len(item.tags), contract, f"{here}.tags")
    if item.absent and item.value:
        raise RequestError(ProblemKind.CONTRADICTION, "what is absent has no value", field=f"{here}.absent")
    if not (item.lease.isascii() and item.lease.isprintable()):
        raise RequestError(ProblemKind.BAD_LEASE, "not a lease token", field=f"{here}.lease")
    if item.source_lag and not item.lease:
        raise RequestError(ProblemKind.CONTRADICTION, UNLEASED_LAG, field=f"{here}.source_lag")
    if item.release is not None and (not item.lease or item.value or item.absent):
        raise RequestError(
            ProblemKind.CONTRADICTION, "a release has a lease, and no value", field=f"{here}.release"
        )
    check_tags(item.tags, f"{here}.tags")
    return Draft(
        item.value,
        content_type=item.content_type,
        tags=item.tags,
        ttl_us=_us(item.ttl),
        stale_for_us=_us(item.stale_while_revalidate),
        error_for_us=_us(item.stale_if_error),
        negative=item.absent,
        lease=item.lease or None,
        source_lag_us=_us(item.source_lag) or 0,
        release=item.release,
    )


def _us(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECONDS)


def _put(written: Written) -> Put:
    if written.error is not None:
        return _failed(written.error)
    if written.unannounced:
        return Put("stored", unannounced=written.unannounced)
    if written.stored:
        return _STORED
    return _RELEASED if written.reason == "released" else _FENCED


def _failed(error: RequestError) -> Put:
    return Put("error", problem_of(error))


def _encoded_bytes(media: str, size: int) -> int:
    """Returns the bytes that values of this size take in an answer: JSON has them in base64."""
    return size if media == MSGPACK else size * 4 // 3


def _reply(media: str, document: GotMany | PutResults) -> Reply:
    _ENCODE[media](document, _spare)
    body = bytes(_spare)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return Reply(200, head.encode(), body)
