"""Rates: requests beyond those of a namespace, or of a caller, are answered 429.

Each rate is a token bucket, filled at this instance's share of the region's rate
(`tiers/shares/share.py`). What is asked is charged to the namespace's rates and to the caller's;
what one of them refuses is charged to none. A batch is charged by its keys, and the keys beyond the
rate fail alone.

    read, answered by L1    charged; refused only once a bucket is overdrawn by one more burst
    read, beyond L1         refused unless there is a token for each key, and bytes are left
    write                   as a read beyond L1
    invalidation            refused if there is no token; a large one may overdraw the bucket
    bytes                   charged when they are known, which may overdraw the bucket

So L1 hits, which cost the least, are refused last: while they overdraw the bucket, reads that need
more are refused already. In the long run all of them together keep to the rate.

L1 hits are charged in steps of up to `SETTLE_SECONDS`: in between, a hit costs two additions and
three comparisons. A step ends at once where the hits in it would empty what they may overdraw.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf
from time import perf_counter

from cachesvc.config.callers import ANONYMOUS_NAME
from cachesvc.config.limits import ByteRate, Rate, Rates
from cachesvc.model.caller import ANONYMOUS, Caller
from cachesvc.model.errors import RequestError
from cachesvc.model.problems import ProblemKind
from cachesvc.tiers.shares.bucket import Bucket
from cachesvc.tiers.shares.share import Limit, Share

SETTLE_SECONDS = 0.05
"""The longest time for which L1 hits are counted and not charged."""
LONGEST_RETRY_SECONDS = 60
"""The longest time after which a refused caller is asked to try again."""
_SHORTEST_SECONDS = 0.001


class Counted:
    """One rate of a namespace or of a caller, at this instance. `now` is in seconds."""

    __slots__ = ("bucket", "rate", "share", "tried", "tried_since")

    def __init__(self, limit: Limit, rate: Rate | ByteRate, instances: int, now: Callable[[], float]) -> None:
        self.rate = rate
        self.share = Share(limit, rate.per_second, instances=instances)
        self.tried = 0.0
        """The amount that was asked since the lessor was, refused or not."""
        self.tried_since = now()
        self.bucket = Bucket(*self._shared(), self.tried_since)
        self.share.demand_now = lambda: self._tried_of_late(now())
        self.share.changed = lambda: self.bucket.change(*self._shared(), now())

    def __repr__(self) -> str:
        return f"<Counted {self.bucket!r} of {self.share!r}>"

    def change(self, rate: Rate | ByteRate, now: float) -> None:
        """Counts to another rate from now on; what was charged stays charged."""
        self.rate = rate
        self.share.resize(rate.per_second)
        self.bucket.change(*self._shared(), now)

    def charge(self, amount: int, now: float) -> None:
        self.tried += amount
        self.share.used += amount
        self.bucket.charge(amount, now)

    def free(self, now: float) -> int:
        """Returns how many may be charged without overdrawing the bucket."""
        return max(1, int(self.bucket.level)) if self.bucket.has_one(now) else 0

    def overdraft(self, now: float) -> float:
        """Returns how much may be charged until the bucket is overdrawn by a whole burst."""
        self.bucket.charge(0, now)
        return self.bucket.level + self.bucket.burst

    def refusal(self, now: float) -> RequestError:
        """Counts a refusal, and returns the error that says so."""
        self.tried += 1
        self.share.refuse()
        return _refusal(self.share.limit, self.rate, self.bucket.seconds_until_one(now))

    def _shared(self) -> tuple[float, float]:
        share = self.share.in_force
        return share, self.rate.most_at_once * share / self.share.amount

    def _tried_of_late(self, now: float) -> float:
        seconds, tried = now - self.tried_since, self.tried
        self.tried_since, self.tried = now, 0.0
        return tried / max(seconds, _SHORTEST_SECONDS)


class Meter:
    """The rates of one namespace or of one caller, at this instance. `now` is in seconds."""

    __slots__ = (
        "_allowed_bytes",
        "_allowed_hits",
        "_bytes",
        "_hits",
        "_new",
        "_settle_at",
        "counted",
        "refuses_hits",
    )

    def __init__(self, of: str, name: str, rates: Rates, instances: int, now: Callable[[], float]) -> None:
        self.counted: dict[str, Counted] = {}
        self.refuses_hits: Counted | None = None
        """The rate that refused the last L1 hit that was refused."""
        self._hits = self._bytes = 0
        """L1 hits, and their bytes, that are not charged yet."""
        self._allowed_hits = self._allowed_bytes = 0.0
        """The amounts of these at which the meter must look at its buckets."""
        self._settle_at = 0.0
        self._new: Callable[[str, Rate | ByteRate], Counted] = lambda what, rate: Counted(
            Limit(of, name, what), rate, instances, now
        )
        self.change(rates, now())

    def __repr__(self) -> str:
        return f"<Meter {self.counted}>"

    def change(self, rates: Rates, now: float) -> None:
        """Counts to other rates from now on. Those that stand in both go on as they are."""
        self.settle(now)
        for what, rate in rates.named.items():
            if what not in self.counted:
                self.counted[what] = self._new(what, rate)
            elif rate != self.counted[what].rate:
                self.counted[what].change(rate, now)
        for what in self.counted.keys() - rates.named.keys():
            del self.counted[what]
        self._settle_at = 0.0

    def hit(self, size: int, now: float) -> bool:
        """Charges an L1 hit of so many bytes; False, and nothing is charged, if it is refused.

        The hottest path.
        """
        self._hits += 1
        self._bytes += size
        if now < self._settle_at and self._hits <= self._allowed_hits and self._bytes <= self._allowed_bytes:
            return True
        return self._is_let_in(size, now)

    def takes_hits(self, count: int, size: int, now: float) -> bool:
        """Charges the L1 hits of a batch; False, and nothing is charged, unless all are let in.

        Where it is False, the hits have to be charged one by one.
        """
        hits, bytes_ = self._hits + count, self._bytes + size
        if now >= self._settle_at:
            self.settle(now)
            hits, bytes_ = count, size
        if hits > self._allowed_hits or bytes_ > self._allowed_bytes:
            return False
        self._hits, self._bytes = hits, bytes_
        return True

    def take_back(self, count: int, size: int) -> None:
        """Takes back the charge of L1 hits which another meter refused."""
        self._hits -= count
        self._bytes -= size

    def _is_let_in(self, size: int, now: float) -> bool:
        """Charges what has come together, without the last hit if it is refused."""
        reads, bytes_ = self.counted.get("reads"), self.counted.get("bytes")
        self.refuses_hits = None
        if bytes_ is not None and bytes_.overdraft(now) <= self._bytes - size:
            self.refuses_hits = bytes_
        if reads is not None and reads.overdraft(now) < self._hits:
            self.refuses_hits = reads
        if self.refuses_hits is not None:
            self.take_back(1, size)
        self.settle(now)
        return self.refuses_hits is None

    def settle(self, now: float) -> None:
        """Charges the L1 hits that are not charged yet."""
        self.charge("reads", self._hits, now)
        self.charge("bytes", self._bytes, now)
        reads, bytes_ = self.counted.get("reads"), self.counted.get("bytes")
        self._allowed_hits = reads.overdraft(now) if reads is not None else inf
        self._allowed_bytes = bytes_.overdraft(now) if bytes_ is not None else inf
        self._hits = self._bytes = 0
        self._settle_at = now + SETTLE_SECONDS

    def lacking(self, what: str, now: float) -> Counted | None:
        """Returns the rate that refuses one more of them; None if there is none."""
        self.settle(now)
        for name in (what, "bytes"):
            counted = self.counted.get(name)
            if counted is not None and not counted.bucket.has_one(now):
                return counted
        return None

    def charge(self, what: str, amount: int, now: float) -> None:
        counted = self.counted.get(what)
        if counted is not None:
            counted.charge(amount, now)


class RateLimits:
    """The rates of all namespaces and callers, at one instance."""

    def __init__(
        self,
        namespaces: Mapping[str, Rates],
        callers: Mapping[str, Rates],
        *,
        instances: int,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        """`instances`: those of the region."""
        self.want: Callable[[], None] = lambda: None
        """Called when a request was refused: a larger share may be had."""
        self._now = now
        self._instances = instances
        self._of_namespace: dict[str, Meter] = {}
        self._of_caller: dict[str, Meter] = {}
        self.take(namespaces, callers)

    def take(self, namespaces: Mapping[str, Rates], callers: Mapping[str, Rates]) -> None:
        """Takes the place of the rates before. A limit that is in both goes on with its share.

        `callers`: by `Caller.rated_as`, empty for anonymous ones.
        """
        for of, meters, rates_of in (
            ("namespace", self._of_namespace, namespaces),
            ("caller", self._of_caller, callers),
        ):
            for name, rates in rates_of.items():
                if name in meters:
                    meters[name].change(rates, self._now())
                else:
                    meters[name] = Meter(of, name or ANONYMOUS_NAME, rates, self._instances, self._now)
            for name in meters.keys() - rates_of.keys():
                del meters[name]
        self.is_on = bool(self._of_namespace or self._of_caller)
        """False if nothing is limited: then nobody has to ask."""

    def __repr__(self) -> str:
        return f"<RateLimits of {[*self._of_namespace, *self._of_caller]}>"

    @property
    def shares(self) -> list[Share]:
        meters = (*self._of_namespace.values(), *self._of_caller.values())
        return [counted.share for meter in meters for counted in meter.counted.values()]

    # L1 hits --------------------------------------------------------------------------------------

    def check_hit(self, namespace: str, size: int, now: float, caller: Caller = ANONYMOUS) -> None:
        """Charges an L1 hit of so many bytes. Raises `RequestError` (`rate-limited`).

        `now` is that of `perf_counter`, which the server has read already.
        """
        meter = self._of_namespace.get(namespace)
        if meter is not None and not meter.hit(size, now):
            raise self._refused(meter.refuses_hits, now)
        other = self._of_caller.get(caller.rated_as)
        if other is not None and not other.hit(size, now):
            if meter is not None:
                meter.take_back(1, size)
            raise self._refused(other.refuses_hits, now)

    def check_hits(
        self, namespace: str, sizes: Sequence[int], caller: Caller = ANONYMOUS
    ) -> Mapping[int, RequestError]:
        """Charges the L1 hits of a batch; returns the refused ones by their places."""
        now, total = self._now(), sum(sizes)
        meter, other = self._of_namespace.get(namespace), self._of_caller.get(caller.rated_as)
        if meter is None or meter.takes_hits(len(sizes), total, now):
            if other is None or other.takes_hits(len(sizes), total, now):
                return {}
            if meter is not None:
                meter.take_back(len(sizes), total)
        refused = {}
        for i, size in enumerate(sizes):
            try:
                self.check_hit(namespace, size, now, caller)
            except RequestError as error:
                refused[i] = error
        return refused

    # all others -----------------------------------------------------------------------------------

    def admit(
        self, what: str, namespace: str, keys: int, caller: Caller = ANONYMOUS
    ) -> tuple[int, RequestError | None]:
        """Charges as many keys as there are tokens for; returns their number.

        With fewer than all it also returns the error of the others.
        """
        now, meters, admitted = self._now(), self._meters(namespace, caller), keys
        for meter in meters:
            if (counted := meter.lacking(what, now)) is not None:
                return 0, self._refused(counted, now)
            if (counted := meter.counted.get(what)) is not None:
                admitted = min(admitted, counted.free(now))
        for meter in meters:
            meter.charge(what, admitted, now)
        if admitted == keys:
            return keys, None
        lacking = (meter.lacking(what, now) for meter in meters)
        first = next((counted for counted in lacking if counted is not None), None)
        return admitted, self._refused(first or meters[0].counted[what], now)

    def check(self, what: str, namespace: str, amount: int = 1, caller: Caller = ANONYMOUS) -> None:
        """Charges something that is done as a whole: in full, once there is one token.

        Raises `RequestError` (`rate-limited`).
        """
        now, meters = self._now(), self._meters(namespace, caller)
        for meter in meters:
            if (counted := meter.lacking(what, now)) is not None:
                raise self._refused(counted, now)
        for meter in meters:
            meter.charge(what, amount, now)

    def charge_bytes(self, namespace: str, size: int, caller: Caller = ANONYMOUS) -> None:
        """Charges bytes of values that were read or are written."""
        now = self._now()
        for meter in self._meters(namespace, caller):
            meter.charge("bytes", size, now)

    def _meters(self, namespace: str, caller: Caller) -> list[Meter]:
        found = (self._of_namespace.get(namespace), self._of_caller.get(caller.rated_as))
        return [meter for meter in found if meter is not None]

    def _refused(self, counted: Counted | None, now: float) -> RequestError:
        assert counted is not None  # noqa: S101  asked only after a refusal
        self.want()
        return counted.refusal(now)


def _refusal(limit: Limit, rate: Rate | ByteRate, seconds: float) -> RequestError:
    """Returns the error of a request that may be sent again in so many seconds."""
    retry_after = ceil(min(max(seconds, 1.0), LONGEST_RETRY_SECONDS))
    may = f"may have {rate.per_second:g} {limit.what} per second in this region"
    return RequestError(
        ProblemKind.RATE_LIMITED,
        f"{limit.of} {limit.name!r} {may}; retry in {retry_after} s",
        retry_after=retry_after,
        lines=_lines(limit, rate, retry_after),
    )


def _lines(limit: Limit, rate: Rate | ByteRate, retry_after: int) -> bytes:
    """Returns `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10)."""
    name = f"{limit.of}-{limit.what}"
    quota, window = (int(rate.per_second), 1) if rate.per_second >= 1 else (1, ceil(1 / rate.per_second))
    unit = ';qu="content-bytes"' if isinstance(rate, ByteRate) else ""
    policy = f'RateLimit-Policy: "{name}";q={quota}{unit};w={window}\r\n'
    return f'{policy}RateLimit: "{name}";r=0;t={retry_after}\r\n'.encode()
