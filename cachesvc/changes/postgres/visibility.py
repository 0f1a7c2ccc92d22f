"""Tells which commits other sessions see already."""


def is_visible(xid: int, snapshot: str) -> bool:
    """True if a transaction, by the lower 32 bits of its id, is visible in a snapshot.

    The log has a commit before other sessions see it: the server makes it visible afterwards, and with
    synchronous replication it waits for replicas in between.
    """
    _, xmax_text, running = snapshot.split(":")
    xmax = int(xmax_text)
    whole = xmax & ~0xFFFFFFFF | xid
    if whole > xmax + (1 << 31):
        whole -= 1 << 32
    return whole < xmax and str(whole) not in running.split(",")
