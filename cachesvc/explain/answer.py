"""What `:explain` answers, as records: one key, as each instance sees it and as its home has it.

Times are µs since the epoch by the clock of whoever tells them; 0 and empty stand for "none". `/openapi.json` describes these
very structs, and instances ask each other for `Seen`, so fields are added with a default and never change their meaning.
"""

from msgspec import Struct

from cachesvc.model.requests import PLAIN, ReadOptions


class Question(Struct, frozen=True):
    options: ReadOptions = PLAIN
    """What the read asks for that is to be explained."""
    headers: dict[str, str] = {}
    """The same, as it was sent: for the other instances."""
    alone: bool = False
    """Only what this instance sees."""


class Copy(Struct, frozen=True, omit_defaults=True):
    """What one place holds of the key."""

    held: bool | None
    """null: the place could not be asked; `unavailable` says why."""
    unavailable: str = ""
    standing: str = ""
    """`fresh`, `stale`, `last resort`, `dead` or `refused`, as a read through this instance would judge it now."""
    rule: str = ""
    refused_by: tuple[str, ...] = ()
    suits: bool = True
    """False: what this read asks for beyond the rule (`max-age`, `no-cache`, …) passes the copy."""
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
    """Where there is a newer copy with another ETag."""


class Window(Struct, frozen=True):
    """A paced fence: this key's turn comes at `due`."""

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
    """At least as new as the newest that was merged here; newer if another target shares its places in the sketch."""
    soft_here: int
    unapplied: int
    """One that the home has not applied, so that this instance judges its copies."""
    paced: tuple[Window, ...] = ()
    perhaps_collision: bool = False
    """`here` is a fence that neither the home nor the recent merges know: probably another target's."""


class Merge(Struct, frozen=True):
    """A fence that was merged here of late."""

    target: str
    kind: str
    """`hard`, `soft` or `paced`."""
    at: int
    merged_at: int
    came: str
    """Whose feed brought it, or `here` if it was issued here."""


class FencesSeen(Struct, frozen=True):
    newest_known_here: int
    floor: int
    floor_why: str
    staleness_bound_seconds: float
    max_lag_seconds: float
    targets: tuple[TargetFences, ...] = ()
    merges: tuple[Merge, ...] = ()
    """Newest first."""
    merges_forgotten_until: int = 0
    """Fences merged before this moment are honoured; when they came is not known any more. 0: nothing is forgotten yet."""


class LeaseSeen(Struct, frozen=True):
    holder: str
    """`region/instance` that asked for it, for a load of its own or for a caller; empty if it is none of the topology's."""
    since: int
    until: int


class Home(Struct, frozen=True, omit_defaults=True):
    """What the home cell holds beside the copy."""

    unavailable: str = ""
    told_by: str = ""
    """The instance that could ask it, where this one could not."""
    lease_held: bool = False
    lease: LeaseSeen | None = None
    key_fence: int = 0
    tag_fences: dict[str, int] = {}
    namespace_fence: int = 0
    broken_at: int = 0
    """Its copies from before then are judged by each instance too: the cell was restarted, or was given partitions."""
    clock: int = 0


class HomeCell(Struct, frozen=True):
    name: str
    region: str
    why: str
    scores: dict[str, float]
    """Rendezvous scores of the active cells, highest first."""
    former: str = ""
    """The cell it was in before partitions moved: fences go there too."""


class Memcached(Struct, frozen=True):
    """Where copies of the key are in the pool of one region."""

    server: str
    why: str
    breaker: str = ""
    """`open`: reads leave the server alone for now."""


class Now(Struct, frozen=True):
    """What a read through this instance would do now."""

    a_read_would: str
    because: str
    section: str
    """Where the rule stands in docs/concepts.md."""
    tier: str = ""
    """Who answers: `l1`, `l2`, `l3`; empty: none of them."""
    but: str = ""


class Seen(Struct, frozen=True, omit_defaults=True):
    """One key as one instance sees it."""

    region: str
    instance: str
    unavailable: str = ""
    """Why it did not tell. Then there is nothing else here."""
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
        return f"{self.region}/{self.instance}"


class Oldest(Struct, frozen=True):
    """The oldest copy that is answered anywhere."""

    where: str
    etag: str
    age_seconds: float
    why: str


class Explanation(Struct, frozen=True):
    verdict: str
    key: str
    namespace: str
    owner: str = ""
    digest: str = ""
    partition: str = ""
    home_cell: HomeCell | None = None
    memcached_server: str = ""
    asked: str = ""
    """The instance that gathered this, `region/instance`; what follows is what it sees itself."""
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
