"""The records that `:explain` answers with: one key, seen by each instance and its home.

Times are µs since the epoch by the clock of whoever tells them; 0 and empty stand for "none".
`/openapi.json` describes these very structs, and instances ask each other for `Seen`, so fields are
added with a default and never change their meaning.
"""

from msgspec import Struct

from cachesvc.model.requests import PLAIN, ReadOptions


class Question(Struct, frozen=True):
    """The read that is to be explained."""

    options: ReadOptions = PLAIN
    """The options of the read that is to be explained."""
    headers: dict[str, str] = {}
    """The same options as the headers that were sent: for the other instances."""
    alone: bool = False
    """True: only the view of the instance that is asked."""


class Copy(Struct, frozen=True, omit_defaults=True):
    """The copy of the key in one place."""

    held: bool | None
    """null: the place could not be asked; `unavailable` says why."""
    unavailable: str = ""
    standing: str = ""
    """`fresh`, `stale`, `last resort`, `dead` or `refused`.

    As a read through this instance would judge the copy now.
    """
    rule: str = ""
    refused_by: tuple[str, ...] = ()
    suits: bool = True
    """False: the copy does not meet what the read asks for beyond the rule.

    For example `max-age` or `no-cache`.
    """
    etag: str = ""
    as_of: int = 0
    fresh_until: int = 0
    stale_until: int = 0
    last_resort_until: int = 0
    age_seconds: float = 0.0
    ttl_seconds: float = 0.0
    bytes: int = 0
    content_type: str = ""
    tags: tuple[str, ...] = ()
    negative: bool = False
    differs: str = ""
    """The place of a newer copy with another ETag; empty if there is none."""


class Window(Struct, frozen=True):
    """A paced fence: the key becomes stale at `due`."""

    at: int
    over_seconds: float
    due: int


class TargetFences(Struct, frozen=True):
    """The newest fences on one target: the key, one of its tags, the namespace."""

    target: str
    at_home: int | None
    """Exact; null: the home could not be asked. A soft fence on a key stands here as well."""
    soft_at_home: int | None
    here: int
    """At least as new as the newest fence that was merged here.

    Newer if another target shares its slots in the sketch.
    """
    soft_here: int
    unapplied: int
    """A fence that the home has not applied, so that this instance judges the home's copies."""
    paced: tuple[Window, ...] = ()
    perhaps_collision: bool = False
    """True if `here` is a fence that neither the home nor the recent merges know.

    It is probably another target's.
    """


class Merge(Struct, frozen=True):
    """A fence that was merged here of late."""

    target: str
    kind: str
    """`hard`, `soft` or `paced`."""
    at: int
    merged_at: int
    came: str
    """The region whose feed brought the fence, or `here` if it was issued here."""
    applied_by: dict[str, str] = {}
    """The cells that had applied the fence, with the numbers of their servers in hex."""


class FencesSeen(Struct, frozen=True):
    """The fences that one instance knows for the key, and its bounds."""

    newest_known_here: int
    floor: int
    floor_why: str
    staleness_bound_seconds: float
    max_lag_seconds: float
    targets: tuple[TargetFences, ...] = ()
    merges: tuple[Merge, ...] = ()
    """Newest first."""
    merges_forgotten_until: int = 0
    """Fences merged before this moment are honoured, but their moments are forgotten.

    0: nothing is forgotten yet.
    """


class LeaseSeen(Struct, frozen=True):
    """The lease of the key that is in force."""

    holder: str
    """The `region/instance` that asked for the lease, for a load of its own or for a caller.

    Empty if it is none of the topology's.
    """
    since: int
    until: int


class Home(Struct, frozen=True, omit_defaults=True):
    """The state of the key in its home cell, beside the copy."""

    unavailable: str = ""
    told_by: str = ""
    """The instance that asked the home, where this one could not; else empty."""
    lease_held: bool = False
    lease: LeaseSeen | None = None
    unkept: bool = False
    """True if values of the key could not be kept lately, as this instance knows.

    A reader here does not wait for the lease of another.
    """
    key_fence: int = 0
    tag_fences: dict[str, int] = {}
    namespace_fence: int = 0
    broken_at: int = 0
    """Copies at home from before this time are judged by each instance too.

    The cell was restarted then, or was given partitions.
    """
    clock: int = 0
    server: str = ""
    """The number of the server that answered, in hex.

    Instances that reach different servers as one cell do not share its copies, leases and fences.
    """


class HomeCell(Struct, frozen=True):
    """The home cell of the key, and why it is that one."""

    name: str
    region: str
    why: str
    scores: dict[str, float]
    """Rendezvous scores of the active cells, highest first."""
    master: str = ""
    """`host:port` of the cell's server, if sentinels name it."""
    former: str = ""
    """The cell that the key was in before partitions moved: fences go there too."""


class Memcached(Struct, frozen=True):
    """The place of the key's copies in the pool of one region."""

    server: str
    why: str
    breaker: str = ""
    """`open`: reads leave the server alone for now."""


class Now(Struct, frozen=True):
    """The thing that a read through this instance would do now."""

    a_read_would: str
    because: str
    section: str
    """The section of docs/concepts.md that has the rule."""
    tier: str = ""
    """The tier that answers, `l1`, `l2` or `l3`; empty if none does."""
    but: str = ""


class Seen(Struct, frozen=True, omit_defaults=True):
    """One key as one instance sees it."""

    region: str
    instance: str
    unavailable: str = ""
    """The reason for which the instance did not tell. Then every other field is empty."""
    clock: int = 0
    tiers: dict[str, Copy] = {}
    """`l1`, `l2`, `l3`."""
    memcached: Memcached | None = None
    fences: FencesSeen | None = None
    home: Home | None = None
    now: Now | None = None
    milliseconds: float = 0.0

    @property
    def name(self) -> str:
        """`region/instance`."""
        return f"{self.region}/{self.instance}"


class Oldest(Struct, frozen=True):
    """The oldest copy that is answered anywhere."""

    where: str
    etag: str
    age_seconds: float
    why: str


class Explanation(Struct, frozen=True):
    """Everything known of one key, and the verdict on it in words."""

    verdict: str
    key: str
    namespace: str
    owner: str = ""
    digest: str = ""
    partition: str = ""
    home_cell: HomeCell | None = None
    memcached_server: str = ""
    asked: str = ""
    """The instance that gathered this, `region/instance`.

    The fields up to `now` are its own view.
    """
    clock: int = 0
    tiers: dict[str, Copy] = {}
    memcached: Memcached | None = None
    fences: FencesSeen | None = None
    home: Home | None = None
    now: Now | None = None
    oldest: Oldest | None = None
    elsewhere: tuple[Seen, ...] = ()
    """The other instances of every region."""
    milliseconds: float = 0.0
