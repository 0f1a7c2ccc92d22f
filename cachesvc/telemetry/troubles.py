"""The sentences that say what is wrong, in `/readyz?verbose` and in `cachesvc top`.

An instance tells what it sees itself. `top` says at which instances, in the same words.
"""


def server_trouble(server: str, why: str) -> str:
    """A server, such as `cell eu-1`, does not have what it needs."""
    return f"{server}: {why}"


def silent_cell(cell: str) -> str:
    return f"cell {cell} does not answer"


def silent_queue(region: str) -> str:
    return f"the queue of {region} does not answer"


def silent_memcached(server: str) -> str:
    return f"memcached {server} does not answer"


CUT_OFF = (
    "this instance is cut off from the shares of the region's limits: of origin budgets it uses its part of "
    "a quarter, of rates its last share"
)


def used_up(limit: str, amount: float) -> str:
    """A limit of the region refuses what goes beyond it."""
    return f"{limit}: more is asked than the {amount:g} of the region"


def loop_trouble(name: str, why: str) -> str:
    """A background loop does not do its work."""
    return f"{name} {why}"
