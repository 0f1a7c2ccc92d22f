"""Named settings. A profile is a value: derive yours with `msgspec.structs.replace(IN_REGION, timeout=0.2)`.

All durations are seconds.
"""

from msgspec import Struct
from msgspec.structs import replace

from cachesvc_client.instances.retries import Retries


class Profile(Struct, frozen=True, kw_only=True):
    """What a client expects of the way to the service. Raises `ValueError` for what could never work."""

    timeout: float
    """Of a call, all tries and pauses included; a namespace or a call can have its own."""
    connect_timeout: float
    """Of opening a connection: less than `timeout`, so that there is time for another instance."""
    load_timeout: float = 30.0
    """Of a loader: the source's affair, so no profile makes it short."""
    lease_wait: float = 5.0
    """How long `get_or_load` waits for another process that holds the lease before it loads for itself."""
    max_loads_without_cache: int = 16
    """Loaders that run at a time when no lease holds back other processes: what a source can take from each of them."""
    max_connections: int = 64
    """To all instances. Batching needs few of them."""
    retries: Retries = Retries()

    def __post_init__(self) -> None:
        for field in ("timeout", "connect_timeout", "load_timeout"):
            if not 0 < getattr(self, field) < float("inf"):
                raise ValueError(f"profile: {field} must be longer than 0")
        if self.lease_wait < 0:
            raise ValueError("profile: lease_wait must be 0 or more")
        for field in ("max_loads_without_cache", "max_connections"):
            if getattr(self, field) < 1:
                raise ValueError(f"profile: {field} must be at least 1")


def profile_with(
    profile: Profile,
    *,
    timeout: float | None = None,
    load_timeout: float | None = None,
    lease_wait: float | None = None,
    max_loads_without_cache: int | None = None,
) -> Profile:
    """The profile with the parts that a caller named for itself."""
    given: dict[str, float | None] = {
        "timeout": timeout,
        "load_timeout": load_timeout,
        "lease_wait": lease_wait,
        "max_loads_without_cache": max_loads_without_cache,
    }
    return replace(profile, **{name: value for name, value in given.items() if value is not None})


LAPTOP = Profile(timeout=5.0, connect_timeout=1.0)
"""A service beside you: patient, as debuggers and cold starts take their time."""
IN_REGION = Profile(timeout=1.0, connect_timeout=0.25)
"""The instances of your region: a hundred times what an answer takes, so that only trouble meets it."""
LOW_LATENCY = Profile(
    timeout=0.1,
    connect_timeout=0.05,
    lease_wait=0.5,
    retries=Retries(most=1, first_pause=0.005, longest_pause=0.02),
)
"""Callers with a budget of their own: rather no answer from the cache than a late one."""
