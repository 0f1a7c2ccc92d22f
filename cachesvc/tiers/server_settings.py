"""The settings of servers that the code relies on, and how each is checked.

The check of a need takes a server's report on itself and returns

    a text          the need is not met; the text names the wrong setting
    an empty text   the need is met
    None            the server does not tell

No need makes an instance unready or a server unused: an instance cannot mend a setting, and all
instances would stop at once. docs/operate.md has the same list for people.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from cachesvc.model.printable import printable
from cachesvc.model.units import Size
from cachesvc.telemetry.findings import Check, Effect
from cachesvc.tiers.redis_report import RedisReport, version_of, whole

R = TypeVar("R")

LEAST_REDIS = (7, 0)
"""The least `redis_version`. Valkey reports 7.2.4 there.

A queue needs what XAUTOCLAIM of 7.0 says of changes that are gone. The scripts of a cell need
ZMSCORE and SET … PXAT, which are of 6.2; no release before 7.0 is tested."""
LEAST_MEMCACHED = (1, 6)
"""The least version with `mg`, with which `explain` looks at a copy."""
LARGEST_LAG_SECONDS = 10
"""The largest `min-replicas-max-lag`; it is also the servers' default.

A master that was cut off takes writes for so long. Failover managers must wait longer than that
before they promote a replica."""
WHOLE_ITEM_BYTES = int(Size.parse("1MiB"))
"""The `item_size_max` that L2's limit of a copy relies on; it is memcached's default."""

MemcachedReport: TypeAlias = Mapping[bytes, object]
"""Statistics and settings of a server by name; names of settings begin with `settings:`."""


class Need(Struct, Generic[R], frozen=True):
    """One thing that a kind of server must have."""

    name: str
    effect: Effect
    why: str
    """The harm that is done if the need is not met."""
    remedy: str
    """The right setting, for people."""
    wrong: Callable[[R], str | None]
    """The check; the module's docstring says what it returns."""

    def check(self, report: R) -> Check:
        """Returns the outcome of the check of this need."""
        wrong = self.wrong(report)
        if not wrong:
            return Check(self.name, self.effect, is_met=None if wrong is None else True)
        return Check(self.name, self.effect, is_met=False, why=f"{wrong}: {self.why}", remedy=self.remedy)


def needs_of_cell(skew_us: int, *, is_watched: bool = False) -> Sequence[Need[RedisReport]]:
    """The needs of a cell's server.

    `skew_us` is `max_clock_skew`; `is_watched`: sentinels may replace the server.
    """
    return (
        Need(
            "eviction",
            "stale",
            "a fence may be evicted, and the copies that it refuses are answered",
            "set maxmemory-policy to volatile-lru, or to another volatile-*",
            _eviction,
        ),
        *_needs_of_redis(skew_us, "fences and leases", is_watched),
        Need(
            "room",
            "cost",
            "a cell that is full of copies refuses fences, and writes get 503",
            "set maxmemory-policy to volatile-lru, or to another volatile-*",
            _room,
        ),
    )


def needs_of_queue(skew_us: int, *, on_disk: bool, is_watched: bool = False) -> Sequence[Need[RedisReport]]:
    """The needs of a queue's server. `on_disk` is the region's `queue_on_disk`."""
    persistence = Need(
        "persistence",
        "cost",
        "a restart loses changes, and every namespace is fenced for it",
        "set appendonly to yes, or say `queue_on_disk: false` in the topology",
        _persistence,
    )
    return (
        Need(
            "eviction",
            "stale",
            "changes and fences may be evicted",
            "set maxmemory-policy to noeviction",
            _eviction,
        ),
        *_needs_of_redis(skew_us, "changes and fences", is_watched),
        *((persistence,) if on_disk else ()),
    )


def needs_of_memcached() -> Sequence[Need[MemcachedReport]]:
    """The needs of a server of a pool; none has the effect `stale`, as L2 is always judged."""
    return (
        Need(
            "version",
            "cost",
            "`explain` cannot look at its copies",
            "use memcached 1.6 or later",
            lambda report: _version(report.get(b"version"), LEAST_MEMCACHED),
        ),
        Need(
            "item-size",
            "cost",
            "larger values have no copy in L2",
            "start it with `-I 1m` or more",
            _item_size,
        ),
        Need(
            "room",
            "cost",
            "once it is full, it takes no new copies",
            "start it without `-M`",
            lambda report: _off(report.get(b"settings:evictions")),
        ),
    )


def need_of_seal() -> Need[bool]:
    """The need of a server whose copies are sealed; its report is whether it held others."""
    return Need(
        "seal",
        "cost",
        "each is a miss",
        "give all instances of the region the same `l2.seal_keys`; if they have them, find out who else "
        "writes to it",
        lambda has_unsealed: "it held copies that no key of this instance has sealed" if has_unsealed else "",
    )


def _needs_of_redis(skew_us: int, taken: str, is_watched: bool) -> Sequence[Need[RedisReport]]:
    """The needs that cells and queues share; `taken` is what the server takes."""
    return (
        Need(
            "failover",
            "stale",
            f"a master that was replaced and is cut off goes on taking {taken}, which the new one lacks",
            "set min-replicas-to-write to 1 or more, and min-replicas-max-lag to 1 to 10",
            lambda report: _failover(report, is_watched),
        ),
        Need(
            "master",
            "stale",
            f"what a replica takes, such as {taken}, is lost when it next follows its master",
            "let the address lead to the master",
            _master,
        ),
        Need(
            "single",
            "stale",
            "keys of one script may lie on different servers, and move between them",
            "give an address to each server, and none to a cluster",
            lambda report: _said(report.info.get("cluster_enabled"), {"0"}, "cluster-enabled is {}"),
        ),
        Need(
            "clock",
            "stale",
            "times of different machines are not in order beyond `max_clock_skew`",
            "repair NTP",
            lambda report: _clock(report, skew_us),
        ),
        Need(
            "version",
            "cost",
            "its scripts are not tested there, or refused",
            "use Redis 7.0, Valkey 7.2, or later",
            lambda report: _version(report.info.get("redis_version"), LEAST_REDIS),
        ),
    )


def _said(value: str | None, good: set[str], wrong: str) -> str | None:
    """Returns a check's outcome: empty if the value is good."""
    if value is None:
        return None
    return "" if value in good else wrong.format(value)


def _eviction(report: RedisReport) -> str | None:
    policy = report.info.get("maxmemory_policy")
    if policy is None:
        return None
    return "" if policy == "noeviction" or policy.startswith("volatile-") else f"maxmemory-policy is {policy}"


def _room(report: RedisReport) -> str | None:
    policy, limit = report.info.get("maxmemory_policy"), report.info.get("maxmemory")
    if policy is None or limit is None:
        return None
    return f"maxmemory-policy is {policy}" if policy == "noeviction" and limit != "0" else ""


def _failover(report: RedisReport, is_watched: bool) -> str | None:
    replicas = report.info.get("connected_slaves")
    if replicas is None:
        return None
    if replicas == "0" and not is_watched:
        return ""
    there = f"{replicas} replica{'' if replicas == '1' else 's'}" + (", and sentinels" * is_watched)
    # INFO has this field while both settings are above 0, so it tells where CONFIG GET is refused.
    if "min_slaves_good_slaves" not in report.info:
        return f"it has {there}, and min-replicas-to-write or min-replicas-max-lag is 0"
    lag = whole((report.settings or {}).get("min-replicas-max-lag"))
    if lag is not None and lag > LARGEST_LAG_SECONDS:
        return f"it has {there}, and min-replicas-max-lag is {lag} s"
    return ""


def _master(report: RedisReport) -> str | None:
    return _said(report.info.get("role"), {"master"}, "its role is {}")


def _clock(report: RedisReport, skew_us: int) -> str:
    offset = report.clock_offset_us
    # What the exchange's own time may account for is no finding: a far server would have one for ever.
    if abs(offset) - report.within_us <= skew_us // 2:
        return ""
    return f"its clock is {offset / 1000:+.0f} ms off that of this instance"


def _persistence(report: RedisReport) -> str | None:
    if report.info.get("aof_enabled") == "1":
        return ""
    save = (report.settings or {}).get("save")
    if save is None:
        return None
    return "" if save else "appendonly is no, and save is empty"


def _version(said: object, least: tuple[int, int]) -> str | None:
    text = said.decode("ascii", "replace") if isinstance(said, bytes) else str(said)
    version = version_of(text)
    if version is None:
        return None
    return "" if version >= least else f"version {printable(text[:40])} is too old"


def _item_size(report: MemcachedReport) -> str | None:
    size = whole(report.get(b"settings:item_size_max"))
    if size is None:
        return None
    return "" if size >= WHOLE_ITEM_BYTES else f"its largest item is {size} bytes"


def _off(said: object) -> str | None:
    return {b"on": "", b"off": "it does not evict"}.get(said) if isinstance(said, bytes) else None
