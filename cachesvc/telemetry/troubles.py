"""The sentences that say what is wrong, in `/readyz?verbose` and in `cachesvc top`.

An instance tells what it sees itself. `top` says at which instances, in the same words.
"""

from cachesvc.telemetry.link_faults import repairable

SILENT = " does not answer"


def server_trouble(server: str, why: str) -> str:
    """A server, such as `cell eu-1`, does not have what it needs."""
    return f"{server}: {why}"


def silent_cell(cell: str, why: str = "") -> str:
    return _silent(f"cell {cell}", why)


def silent_queue(region: str, why: str = "") -> str:
    return _silent(f"the queue of {region}", why)


def silent_memcached(server: str, why: str = "") -> str:
    return _silent(f"memcached {server}", why)


def silent_origin(namespace: str) -> str:
    return _silent(f"the origin of {namespace}", "")


def silent_peer(instance: str) -> str:
    return _silent(f"the instance {instance}", "")


def relay_left_alone(relay: str) -> str:
    """A relay was left, or cannot be connected to."""
    return f"relay {relay} is left alone: fences are read from elsewhere"


def _silent(server: str, why: str) -> str:
    """A server gives no answer; of the reason, the part is told that says what to do."""
    remedy = repairable(why)
    return f"{server}{SILENT}" + (f": {remedy}" if remedy else "")


CUT_OFF = (
    "this instance is cut off from the shares of the region's limits: of origin budgets it uses its part of "
    "a quarter, of rates its last share"
)

MOVE_IS_OVER = "a move of partitions is over, and the document still has its `former`: cachesvc cell settle"

UNANNOUNCED_HERE = (
    "this instance has invalidations or puts in its journal that the others have not been told of: "
    "it tells them when the queue is back"
)


def stranger(name: str) -> str:
    """An instance runs that the topology document does not name."""
    return (
        f"instance {name} is not in the topology: clients and other instances do not ask it. "
        "Name it under `instances`, or stop it"
    )


def used_up(limit: str, amount: float) -> str:
    """A limit of the region refuses what goes beyond it."""
    return f"{limit}: more is asked than the {amount:g} of the region"


def loop_trouble(name: str, why: str) -> str:
    """A background loop does not do its work."""
    return f"{name} {why}"
