"""Rates hold in the long run, and L1 hits are refused last."""

import pytest

from cachesvc.config.callers import rated_as
from cachesvc.config.limits import ByteRate, Rate, Rates
from cachesvc.model.caller import Caller
from cachesvc.model.errors import RequestError
from cachesvc.model.units import Size
from cachesvc.tiers.shares.contract import Grant
from cachesvc.web.rates import RateLimits


class Bench:
    """The rates of namespace `pages` and of caller `shop`, on a clock that is turned by hand."""

    def __init__(self, rates: Rates, of_caller: Rates | None = None, instances: int = 1) -> None:
        self.now = 100.0
        callers = {} if of_caller is None else {"shop": of_caller}
        self.limits = RateLimits({"pages": rates}, callers, instances=instances, now=lambda: self.now)
        self.wanted = 0
        self.limits.want = self.want

    def want(self) -> None:
        self.wanted += 1

    def hits(self, count: int, size: int = 10, caller: str = "") -> int:
        """Asks so many L1 hits at this moment; returns how many were let in."""
        passed = 0
        for _ in range(count):
            try:
                self.limits.check_hit("pages", size, self.now, Caller(caller, caller))
                passed += 1
            except RequestError:
                pass
        return passed

    def beyond(self, count: int, what: str = "reads", caller: str = "") -> int:
        return self.limits.admit(what, "pages", count, Caller(caller, caller))[0]

    def used(self) -> dict[str, int]:
        return {str(share.limit): share.used for share in self.limits.shares}


def test_reads_beyond_l1_are_as_many_as_there_are_tokens() -> None:
    bench = Bench(Rates(reads=Rate(10, burst=5)))
    assert bench.beyond(8) == 5
    assert bench.beyond(1) == 0
    bench.now += 0.2
    assert bench.beyond(8) == 2
    assert bench.wanted == 3


def test_a_refusal_says_when_to_come_back_and_which_rate_it_is() -> None:
    bench = Bench(Rates(reads=Rate(0.25, burst=1)))
    assert bench.beyond(1) == 1
    _, error = bench.limits.admit("reads", "pages", 1)
    assert error is not None
    assert error.retry_after_seconds == 4
    assert error.lines == (
        b'RateLimit-Policy: "namespace-reads";q=1;w=4\r\nRateLimit: "namespace-reads";r=0;t=4\r\n'
    )
    assert error.detail == ("namespace 'pages' may have 0.25 reads per second in this region; retry in 4 s")


def test_hits_are_refused_last() -> None:
    bench = Bench(Rates(reads=Rate(10, burst=20)))
    assert bench.hits(15) == 15
    assert bench.beyond(10) == 5
    assert bench.beyond(1) == 0
    assert bench.hits(50) == 20, "one more burst"
    assert bench.hits(1) == 0
    bench.now += 1
    assert bench.beyond(1) == 0, "the debt is paid first"
    assert bench.hits(50) == 10


@pytest.mark.parametrize("step", [0.001, 0.01, 0.3])
def test_hits_keep_to_the_rate_in_the_long_run(step: float) -> None:
    bench = Bench(Rates(reads=Rate(1000, burst=100)))
    passed, began = 0, bench.now
    while bench.now - began < 5:
        passed += bench.hits(max(1, int(step * 3000)))
        bench.now += step
    seconds = bench.now - began
    assert passed <= 1000 * seconds + 2 * 100 + 1000 * 0.05
    if step < 0.1:
        assert passed >= 990 * seconds
    assert bench.used()["reads of namespace pages"] <= passed


def test_hits_below_the_rate_are_never_refused() -> None:
    bench = Bench(Rates(reads=Rate(1000, burst=100)))
    for _ in range(2000):
        assert bench.hits(9) == 9
        bench.now += 0.01


def test_bytes_are_charged_when_they_are_known() -> None:
    bench = Bench(Rates(bytes=ByteRate(Size(1000), Size(1000))))
    assert bench.beyond(5) == 5
    bench.limits.charge_bytes("pages", 1500)
    assert bench.beyond(1) == 0
    bench.now += 0.6
    assert bench.beyond(1) == 1


def test_hits_of_many_bytes_are_refused_once_two_bursts_are_overdrawn() -> None:
    bench = Bench(Rates(bytes=ByteRate(Size(1000), Size(1000))))
    assert bench.hits(10, size=500) == 4
    assert bench.hits(1, size=5000) == 0
    bench.now += 1
    assert bench.hits(1, size=5000) == 1, "a value larger than any burst passes too"
    bench.now += 3
    assert bench.hits(1, size=1) == 0


def test_what_the_caller_is_refused_is_not_charged_to_the_namespace() -> None:
    bench = Bench(Rates(reads=Rate(10, burst=100)), Rates(reads=Rate(10, burst=5)))
    assert bench.beyond(20, caller="shop") == 5
    assert bench.hits(20, caller="shop") == 5
    assert bench.beyond(100) == 90
    assert bench.used()["reads of namespace pages"] == 100


def test_a_batch_of_hits_is_charged_at_once_or_one_by_one() -> None:
    bench = Bench(Rates(reads=Rate(10, burst=10)), Rates(reads=Rate(10, burst=3)))
    assert bench.limits.check_hits("pages", [10] * 12) == {}
    assert sorted(bench.limits.check_hits("pages", [10] * 12)) == [8, 9, 10, 11]
    assert sorted(bench.limits.check_hits("other", [10] * 8, Caller("shop", "shop"))) == [6, 7]


def test_a_large_invalidation_overdraws_its_rate() -> None:
    bench = Bench(Rates(invalidations=Rate(10, burst=10)))
    bench.limits.check("invalidations", "pages", 100)
    with pytest.raises(RequestError) as refused:
        bench.limits.check("invalidations", "pages", 1)
    assert refused.value.retry_after == 10


def test_namespaces_and_callers_without_rates_are_free() -> None:
    bench = Bench(Rates(reads=Rate(1)))
    assert bench.limits.admit("reads", "other", 1000) == (1000, None)
    assert bench.beyond(1000, "writes") == 1000
    bench.limits.check_hit("other", 10, bench.now)


def test_a_share_of_the_rate_is_what_this_instance_may_use() -> None:
    bench = Bench(Rates(reads=Rate(80, burst=80)), instances=8)
    assert bench.beyond(100) == 10, "an equal part, before the first grant"
    (share,) = bench.limits.shares
    share.grant(Grant(40, 0))
    assert bench.beyond(100) == 0, "a larger bucket is not a full one"
    bench.now += 1
    assert bench.beyond(100) == 40
    share.lapse()
    assert share.in_force == 40, "a rate is kept while the queue is away"


def test_the_lessor_is_told_of_what_was_refused() -> None:
    bench = Bench(Rates(reads=Rate(10, burst=10)))
    (share,) = bench.limits.shares
    bench.now += 1
    bench.beyond(10)
    for _ in range(30):
        bench.beyond(1)
    assert share.ask(10).demand == pytest.approx(40)
    assert share.refused == 30


def test_rates_change_while_they_are_counted() -> None:
    """A rate that is in both goes on with its share and its counts; a new one counts from now on."""
    bench = Bench(Rates(reads=Rate(100), writes=Rate(10)), Rates(reads=Rate(50)), instances=4)
    (share,) = [one for one in bench.limits.shares if str(one.limit) == "reads of namespace pages"]
    share.grant(Grant(60, 0))
    assert bench.beyond(100) == 25, "the share was larger than the burst so far"
    bench.limits.take({"pages": Rates(reads=Rate(10), bytes=ByteRate(Size(40)))}, {"": Rates(reads=Rate(4))})
    assert (share.amount, share.in_force) == (10, 6)
    assert sorted(bench.used()) == [
        "bytes of namespace pages",
        "reads of caller anonymous",
        "reads of namespace pages",
    ]
    assert bench.used()["reads of namespace pages"] == 25
    assert bench.beyond(100) == 0, "no change fills a bucket"
    bench.now += 1
    assert bench.beyond(100, caller="shop") == 6
    bench.limits.take({}, {})
    assert (bench.limits.is_on, bench.limits.shares) == (False, [])
    assert bench.beyond(1000) == 1000


def test_callers_of_an_issuer_share_its_rates() -> None:
    bench = Bench(Rates(writes=Rate(1)))
    bench.limits.take({}, {rated_as("ci"): Rates(reads=Rate(5))})
    one, other = (Caller(f"ci:{name}", rated_as("ci")) for name in "ab")
    assert bench.limits.admit("reads", "pages", 3, one)[0] == 3
    admitted, error = bench.limits.admit("reads", "pages", 3, other)
    assert (admitted, error is not None and "caller 'ci:*' may have 5 reads" in str(error)) == (2, True)
