"""The instances of the region that the client was pointed at, and which of them to ask.

    configured URLs, in order → GET /v1/topology → the region's instances → a ring over their names

The configured URLs are asked in their order until the topology is known, and where it names no
instances (they may all stand behind one address). They stay the last resort: an instance's own
address may be one that this client cannot reach.

No I/O happens here: the owner asks for the document when it is due. Times are monotonic seconds.
"""

import random
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from yarl import URL

from cachesvc_client.instances.endpoints import Endpoint, urls_of
from cachesvc_client.instances.ring import Ring

TOPOLOGY_PATH = "/v1/topology"
REFRESH_SECONDS = 30.0
"""The greatest age of the list, shortened by a random tenth.

A new instance is asked for its keys at most this much later.
"""
AFTER_FAILURE_SECONDS = 1.0
"""The pause between two requests for the document while instances fail."""


class _Here(Struct):
    region: str = ""
    instance: str = ""


class _Region(Struct):
    instances: dict[str, str] = {}


class _Topology(Struct):
    regions: dict[str, _Region]
    here: _Here = msgspec.field(default_factory=_Here)


_decode = msgspec.json.Decoder(_Topology).decode


def instances_of(document: bytes) -> dict[str, str]:
    """Name → base URL, for the region of the instance that answered.

    Empty if the document does not say. Raises `ValueError` if it is no topology.
    """
    topology = _decode(document)
    region = topology.regions.get(topology.here.region)
    return region.instances if region is not None else {}


class Region:
    """The instances known to one client, and the order in which they are asked.

    Only `learn`, `use`, and the failures of the endpoints change it. One thread at a time may call
    `learn`.
    """

    def __init__(self, urls: Sequence[URL], rng: random.Random, *, discover: bool = True) -> None:
        """`discover`: False, and only the configured URLs are asked."""
        self._configured = [Endpoint(url) for url in urls]
        self._rng = rng
        self._discover = discover
        self._instances: dict[str, Endpoint] = {}
        self._ring: Ring | None = None
        self._everyone = list(self._configured)
        self._sole: Endpoint | None = self._configured[0]
        self._due = 0.0
        self._asked = 0.0

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
        self.use(instances_of(document))

    def use(self, instances: Mapping[str, str]) -> None:
        """Uses these instances. One whose URL is known keeps its failures; others are dropped."""
        known = {_spelled(endpoint.base): endpoint for endpoint in self._everyone}
        found: dict[str, Endpoint] = {}
        for name, text in instances.items():
            (url,) = urls_of(text)
            found[name] = known.get(_spelled(url)) or Endpoint(url)
        if self._ring is None or self._ring.names != found.keys():
            self._ring = Ring(found) if found else None
        self._instances = found
        self._everyone = list(dict.fromkeys((*found.values(), *self._configured)))
        everybodys = list(found.values()) or self._configured[:1]
        self._sole = everybodys[0] if len(everybodys) == 1 else None

    # the instances to ask -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._everyone)

    @property
    def sole(self) -> Endpoint | None:
        """The only instance, if there is one and it has not failed; None otherwise.

        Then no key needs a digest, the most expensive part of a request.
        """
        sole = self._sole
        return sole if sole is not None and not sole.rests_until else None

    def home(self, key_digest: int, now: float) -> Endpoint:
        """The instance of a key, or, while that is out of reach, the next one on the ring.

        If all instances are out of reach, a configured URL may still be well: it may lead to them by
        another way.
        """
        ring = self._ring
        if ring is None:
            well = (one for one in self._configured if one.is_well(now))
            return next(well, None) or self.candidates(now)[0]
        own = self._instances[ring.first(key_digest)]
        if own.is_well(now):
            return own
        heirs = (self._instances[name] for name in ring.preference(key_digest))
        others = (other for other in (*heirs, *self._configured) if other is not own)
        return next((other for other in others if other.is_well(now)), own)

    def candidates(self, now: float, home: Endpoint | None = None) -> list[Endpoint]:
        """All instances in the order of asking: `home`, those that are well, the others.

        Those that rest or are silent are asked if there is nobody else: trying is better than giving up.
        """
        return sorted(
            self._everyone, key=lambda one: (one is not home, one.is_silent, max(one.rests_until, now))
        )

    def attempts(self, now: float, home: Endpoint | None = None) -> list[Endpoint]:
        """The instances that a request is sent to until one takes it: each once, the first twice.

        If a kept connection fails because the server has just closed it, the server may be well.
        """
        candidates = self.candidates(now, home)
        return [*candidates, candidates[0]]

    def sources(self, now: float) -> list[Endpoint]:
        """The instances to ask for the document: the configured URLs first.

        While those were out of reach, the client may have come to instances of another region, which
        would never lead it back.
        """
        return sorted(
            dict.fromkeys((*self._configured, *self._everyone)),
            key=lambda one: (one.is_silent, max(one.rests_until, now)),
        )

    def feed_urls(self) -> list[str]:
        """The base URLs at which the feed of fences may be followed."""
        return [str(endpoint.base) for endpoint in self._everyone]


def _spelled(url: URL) -> str:
    return str(url).rstrip("/")
