"""States of cells and queues that need a person, and that no setting of theirs shows.

Each is a `Need`, judged by a server's report on itself, as those of `server_settings.py` are. They
come and go while the settings stay.
"""

from collections.abc import Sequence

from cachesvc.tiers.redis_report import RedisReport, fields_with
from cachesvc.tiers.server_settings import Need

_MIB = 1 << 20


def conditions_of_cell() -> Sequence[Need[RedisReport]]:
    return (
        Need(
            "full",
            "cost",
            "it refuses fences and copies, and writes and invalidations get 503",
            "raise its maxmemory, or move partitions to other cells",
            _full,
        ),
    )


def conditions_of_queue() -> Sequence[Need[RedisReport]]:
    return (
        Need(
            "full",
            "cost",
            "it refuses changes and fences, and invalidations get 503",
            "raise its maxmemory",
            _full,
        ),
        Need(
            "dead-letters",
            "stale",
            "an event that breaks the rules was not applied, so old values may be answered",
            "read them (XREVRANGE changes:dead + - COUNT 20), announce the changes again,"
            " and DEL changes:dead",
            _dead_letters,
        ),
    )


def _full(report: RedisReport) -> str:
    """Not empty if the server has no room and nothing that it may evict.

    A cell that evicts copies is as large as its limit, and well.
    """
    used, limit = report.memory_used_bytes, report.memory_limit_bytes
    if used is None or limit is None or used < limit:
        return ""
    may_evict = report.info.get("maxmemory_policy", "").startswith("volatile-")
    if may_evict and any(int(count) for count in fields_with("expires", report.info)):
        return ""
    return f"it is full ({used / _MIB:.1f} of {limit / _MIB:.1f} MiB)"


def _dead_letters(report: RedisReport) -> str:
    if not report.dead_letters:
        return ""
    return (
        "it has 1 dead letter" if report.dead_letters == 1 else f"it has {report.dead_letters} dead letters"
    )
