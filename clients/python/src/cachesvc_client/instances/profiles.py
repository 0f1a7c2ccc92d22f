"""Profiles: named settings. All durations are seconds.

A profile is a value: derive yours with `msgspec.structs.replace(IN_REGION, timeout=0.2)`.
"""

from numbers import Real

from msgspec import Struct
from msgspec.structs import replace

from cachesvc_client.instances.retries import Retries


class Profile(Struct, frozen=True, kw_only=True):
    """The times and numbers that a client expects of the way to the service.

    Raises `ValueError` for settings that could never work.
    """

    timeout: float
    """The time of a call with its tries and pauses; a namespace or a call can have its own."""
    connect_timeout: float
    """The time of one round trip while a connection is opened; a TLS connection takes three.

    Below `timeout`, to leave some for another instance.
    """
    load_timeout: float = 30.0
    """The time of a loader. It depends on the source, so no profile makes it short."""
    lease_wait: float = 5.0
    """The wait of `get_or_load` for another process's lease, before it loads without one."""
    max_loads_without_cache: int = 16
    """The loaders that run at a time when no lease holds back other processes.

    A source has to bear this many from each process.
    """
    max_connections: int = 64
    """The connections to all instances together. Batching needs few of them."""
    retries: Retries = Retries()

    def __post_init__(self) -> None:
        for field in ("timeout", "connect_timeout", "load_timeout"):
            if not 0 < self._number(field) < float("inf"):
                raise ValueError(f"profile: {field} must be longer than 0")
        if self._number("lease_wait") < 0:
            raise ValueError("profile: lease_wait must be 0 or more")
        for field in ("max_loads_without_cache", "max_connections"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"profile: {field} must be at least 1")
        if not isinstance(self.retries, Retries):
            raise ValueError(f"profile: retries are Retries(…), not {self.retries!r}")

    def _number(self, field: str) -> float:
        value = getattr(self, field)
        if not isinstance(value, Real):
            raise ValueError(f"profile: {field} is a number of seconds, not {value!r}")
        return float(value)


def profile_with(
    profile: Profile,
    *,
    timeout: float | None = None,
    load_timeout: float | None = None,
    lease_wait: float | None = None,
    max_loads_without_cache: int | None = None,
) -> Profile:
    """The profile with the parts that a caller named for itself."""
    if not isinstance(profile, Profile):
        raise ValueError(
            f"profile: {profile!r} is none: LAPTOP, IN_REGION, LOW_LATENCY, or your own Profile(…)"
        )
    given: dict[str, float | None] = {
        "timeout": timeout,
        "load_timeout": load_timeout,
        "lease_wait": lease_wait,
        "max_loads_without_cache": max_loads_without_cache,
    }
    return replace(profile, **{name: value for name, value in given.items() if value is not None})


LAPTOP = Profile(timeout=5.0, connect_timeout=1.0)
"""For a service on the same machine: patient, as debuggers and cold starts take time."""
IN_REGION = Profile(timeout=1.0, connect_timeout=0.25)
"""For instances of one region.

The timeout is a hundred times what an answer takes, so that only trouble reaches it.
"""
LOW_LATENCY = Profile(
    timeout=0.1,
    connect_timeout=0.05,
    lease_wait=0.5,
    retries=Retries(most=1, first_pause=0.005, longest_pause=0.02),
)
"""For callers with little time, who prefer no answer of the cache to a late one."""
