"""Which hosts are this machine itself."""

import ipaddress


def is_loopback(host: str) -> bool:
    """True if `host` is `localhost`, a name below it, or a loopback address (no brackets)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
