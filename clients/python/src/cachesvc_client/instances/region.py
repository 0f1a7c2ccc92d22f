"""The instances of the region that the client was pointed at, and which of them to ask.

    configured URLs, in order → GET /v1/topology → the region's instances → rings of their names

The configured URLs are asked in their order until the topology is known, and where it names no
instances (they may all stand behind one address). They stay the last resort: an instance's own
address may be one that this client cannot reach. So no caller's request goes to an address from the
document before a probe was answered there.

No I/O happens here: the owner asks for the document when it is due. Times are monotonic seconds.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec
from msgspec import Struct
from yarl import URL

from cachesvc_client.instances.endpoints import Endpoint, spelled, urls_of
from cachesvc_client.instances.hot_keys import HotKeys
from cachesvc_client.instances.rings import Rings

TOPOLOGY_PATH = "/v1/topology"
REFRESH_SECONDS = 30.0
"""The greatest age of the list, shortened by a random tenth.

A new instance is asked for its keys at most this much later.
"""
AFTER_FAILURE_SECONDS = 1.0
"""The pause between two requests for the document while instances fail."""
LOOK_SECONDS = 0.1
"""The pause between two looks for instances to probe."""


class _Here(Struct):
    region: str = ""
    instance: str = ""


class _Region(Struct):
    instances: dict[str, str] = {}
    zones: dict[str, str] = {}


class _Topology(Struct):
    regions: dict[str, _Region]
    here: _Here = msgspec.field(default_factory=_Here)


_decode = msgspec.json.Decoder(_Topology).decode


def instances_of(document: bytes) -> dict[str, str]:
    """Name → base URL, for the region of the instance that answered.

    Empty if the document does not say. Raises `ValueError` if it is no topology.
    """
    return _region_in(document).instances


def _region_in(document: bytes) -> _Region:
    topology = _decode(document)
    return topology.regions.get(topology.here.region) or _Region()


class Region:
    """The instances known to one client, and the order in which they are asked.

    Only `learn`, `use`, and the failures of the endpoints change it. One thread at a time may call
    `learn`.
    """

    def __init__(
        self,
        urls: Sequence[URL],
        rng: random.Random,
        *,
        discover: bool = True,
        shared: bool = True,
        zone: str = "",
    ) -> None:
        """`discover`: False, and only the configured URLs are asked.

        `shared`: False, and what is known of the instances is this client's alone. It is for a session
        that was passed in, which may go another way to the same addresses.

        `zone`: that of this client, whose instances are preferred.
        """
        self._zone = zone
        self._rng = rng
        self._discover = discover
        self._hot = HotKeys(rng)
        self.begin_anew(urls, shared=shared)

    def begin_anew(self, urls: Sequence[URL], *, shared: bool) -> None:
        """Forgets the instances and their failures; these are the configured URLs from now on."""
        self._endpoint: Callable[..., Endpoint] = Endpoint.at if shared else Endpoint
        self._configured = [self._endpoint(url) for url in urls]
        self._instances: dict[str, Endpoint] = {}
        self._rings = Rings(self._zone)
        self._everyone = list(self._configured)
        self._sole: Endpoint | None = self._configured[0]
        self._due = 0.0
        self._asked = 0.0
        self._looked = float("-inf")
        self._hot.clear()

    def __repr__(self) -> str:
        known = ", ".join(sorted(self._instances)) or "not known"
        configured = ", ".join(str(endpoint.base) for endpoint in self._configured)
        return f"<Region [instances: {known}] from {configured}>"

    # the document ---------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        return self._discover and now >= self._due

    def asked(self, now: float) -> None:
        """Notes that a request for the document is under way: no other one is due."""
        self._asked = now
        self._due = now + REFRESH_SECONDS * self._rng.uniform(0.9, 1.0)

    def failed(self) -> None:
        """Notes a failure of an instance, or of the request: the list may be out of date."""
        self._due = min(self._due, self._asked + AFTER_FAILURE_SECONDS)

    def learn(self, document: bytes) -> None:
        """Uses the instances of a document. Raises `ValueError` if it is none; nothing changes."""
        region = _region_in(document)
        self.use(region.instances, region.zones)

    def use(self, instances: Mapping[str, str], zones: Mapping[str, str] = MappingProxyType({})) -> None:
        """Uses these instances. One whose URL is known keeps its failures; others are dropped."""
        known = {spelled(endpoint.base): endpoint for endpoint in self._everyone}
        found: dict[str, Endpoint] = {}
        for name, text in instances.items():
            (url,) = urls_of(text)
            found[name] = known.get(spelled(url)) or self._endpoint(url, is_proven=False)
        self._rings.use(found, zones)
        self._instances = found
        near = [one for name, one in found.items() if self._zone and zones.get(name) == self._zone]
        self._everyone = list(dict.fromkeys((*near, *found.values(), *self._configured)))
        everybodys = near or list(found.values()) or self._configured[:1]
        self._sole = everybodys[0] if len(everybodys) == 1 else None
        self._looked = float("-inf")

    # the instances to ask -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._everyone)

    @property
    def has_tls(self) -> bool:
        """True if a configured URL is one of HTTPS."""
        return any(endpoint.base.scheme == "https" for endpoint in self._configured)

    def probes(self, now: float) -> list[Endpoint]:
        """The instances to which the caller sends a probe now; most often none."""
        if now < self._looked + LOOK_SECONDS:
            return []
        self._looked = now
        self._rings.look()
        return [endpoint for endpoint in self._everyone if endpoint.claim_probe(now)]

    @property
    def sole(self) -> Endpoint | None:
        """The only instance (of the own zone), if nothing speaks against it; None otherwise.

        Then no key needs a digest, the most expensive part of a request.
        """
        sole = self._sole
        return sole if sole is not None and sole.is_clean else None

    def home(self, key_digest: int, now: float) -> Endpoint:
        """The instance of a key, or, while that is out of reach, the next one on the ring.

        If all instances are out of reach, a configured URL may still be well: it may lead to them by
        another way.
        """
        ring = self._rings.of(key_digest)
        if ring is None:
            well = (one for one in self._configured if one.is_well(now))
            return next(well, None) or self.candidates(now)[0]
        own = self._instances[ring.first(key_digest)]
        if own.is_well(now):
            return own
        heirs = (self._instances[name] for name in self._rings.preference(key_digest))
        others = (other for other in (*heirs, *self._configured) if other is not own)
        return next((other for other in others if other.is_well(now)), own)

    def reader(self, key_digest: int, now: float) -> Endpoint:
        """The instance that a key is read from: `home`, or for a hot key one of several in turn.

        An instance that something speaks against is passed over, and `home` asked.
        """
        if self._hot and (turn := self._hot.turn(key_digest, now)) is not None:
            instances, nth = turn
            ring = self._rings.of(key_digest)
            if ring is None:
                return self.home(key_digest, now)
            names = ring.preference(key_digest, instances)
            if (one := self._instances[names[nth % len(names)]]).is_clean:
                return one
        return self.home(key_digest, now)

    def heed_spread(self, key_digest: int, instances: int, now: float) -> None:
        """Notes that the service asks to spread the reads of a hot key over so many instances."""
        self._hot.heed(key_digest, instances, now)

    def is_elsewhere(self, key_digest: int, endpoint: Endpoint | None, now: float) -> bool:
        """True if the key is spread, and `endpoint` is not its own instance, where fills go."""
        ring = self._rings.of(key_digest)
        if ring is None or not self._hot.instances(key_digest, now):
            return False
        return self._instances[ring.first(key_digest)] is not endpoint

    def candidates(self, now: float, home: Endpoint | None = None) -> list[Endpoint]:
        """All instances in the order of asking: `home`, those that are well, the others.

        Those that are barred, even `home`, are asked if there is nobody else: trying is better than
        giving up. Of these, `home` is the first, and then the one whose rest ends first.
        """
        everyone = self._everyone
        if all(one.is_clean for one in everyone):  # nearly always; a fourth of the time of sorting
            return [home, *(one for one in everyone if one is not home)] if home in everyone else [*everyone]
        return sorted(
            everyone,
            key=lambda one: (one.is_barred(now), one is not home, one.is_doubted, max(one.rests_until, now)),
        )

    def attempts(self, now: float, home: Endpoint | None = None) -> tuple[list[Endpoint], int]:
        """The instances that a request is sent to until one takes it: each once, the first twice.

        If a kept connection fails because the server has just closed it, the server may be well. The
        number says how many of the first ones are well: only these are worth a share of the time of a
        request that the one before left unanswered.
        """
        candidates = self.candidates(now, home)
        well = sum(one.is_clean or not one.is_barred(now) for one in candidates)
        return [*candidates, candidates[0]], well

    def sources(self, now: float) -> list[Endpoint]:
        """The instances to ask for the document: the configured URLs first.

        While those were out of reach, the client may have come to instances of another region, which
        would never lead it back.
        """
        return sorted(
            dict.fromkeys((*self._configured, *self._everyone)),
            key=lambda one: (one.is_barred(now), one.is_doubted, max(one.rests_until, now)),
        )

    def feed_urls(self) -> list[str]:
        """The base URLs at which the feed of fences may be followed."""
        return [str(endpoint.base) for endpoint in self._rings.near or self._everyone]
