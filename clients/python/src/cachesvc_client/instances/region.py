"""The instances of the region that the client was pointed at, and which of them to ask.

    configured URLs, in order ──► GET /v1/topology ──► `here` and the regions' instances ──► a ring over their names

Until the topology is known, and wherever it names no instances (they may all stand behind one address), the configured URLs are
asked in their order. They stay the last resort: an instance's own address may be one that this client cannot reach.

Decides, and does no I/O: whoever owns it asks for the document when it is due. Times are monotonic seconds.
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
"""How old the list may get; shortened by a random tenth. An instance that is new takes its keys so much later."""
AFTER_FAILURE_SECONDS = 1.0
"""Between two requests for the document while instances fail."""


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
    """Name → base URL, of the region of the instance that answered; empty if it does not say. Raises `ValueError` for what is no
    topology."""
    topology = _decode(document)
    region = topology.regions.get(topology.here.region)
    return region.instances if region is not None else {}


class Region:
    """Immutable but for what `learn` and the endpoints' own failures change. One thread at a time may call `learn`."""

    def __init__(self, urls: Sequence[URL], rng: random.Random, *, discover: bool = True) -> None:
        """`discover`: False, and the configured URLs are all there is."""
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
        return f"<Region [instances: {known}] from {', '.join(str(endpoint.base) for endpoint in self._configured)}>"

    # the document -----------------------------------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        return self._discover and now >= self._due

    def asked(self, now: float) -> None:
        """A request for the document is under way: nobody else need send one."""
        self._asked = now
        self._due = now + REFRESH_SECONDS * self._rng.uniform(0.9, 1.0)

    def failed(self) -> None:
        """An instance, or the request for the document, failed: the list may be out of date."""
        self._due = min(self._due, self._asked + AFTER_FAILURE_SECONDS)

    def learn(self, document: bytes) -> None:
        """Raises `ValueError` for what is no topology; then all stays as it was."""
        self.use(instances_of(document))

    def use(self, instances: Mapping[str, str]) -> None:
        """An instance whose URL is known keeps its failures; one that is gone is asked no more."""
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

    # whom to ask ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._everyone)

    @property
    def sole(self) -> Endpoint | None:
        """Whose all keys are, if that is so and it has not failed: then nobody needs a digest, the dearest part of asking."""
        sole = self._sole
        return sole if sole is not None and not sole.rests_until else None

    def home(self, key_digest: int, now: float) -> Endpoint:
        """The instance for this key: its own, or, while that is out of reach, the next one on the ring."""
        ring = self._ring
        if ring is None:
            return self.candidates(now)[0]
        own = self._instances[ring.first(key_digest)]
        if own.rests_until <= now:
            return own
        heirs = (self._instances[name] for name in ring.preference(key_digest))
        return next((heir for heir in heirs if heir.rests_until <= now), own)

    def candidates(self, now: float, home: Endpoint | None = None) -> list[Endpoint]:
        """Everyone in the order of asking: `home`, those that are well, those that rest. With nobody else left, trying beats
        giving up."""
        return sorted(self._everyone, key=lambda one: (one is not home, max(one.rests_until, now)))

    def attempts(self, now: float, home: Endpoint | None = None) -> list[Endpoint]:
        """The instances that a request is sent to until one takes it: each once, and the first once more.

        The failure of a kept connection that the server has just closed says nothing of the server.
        """
        candidates = self.candidates(now, home)
        return [*candidates, candidates[0]]

    def sources(self, now: float) -> list[Endpoint]:
        """Whom to ask for the document: the configured URLs first. Others may be of another region, if these were away for
        a while, and would never lead back."""
        return sorted(
            dict.fromkeys((*self._configured, *self._everyone)), key=lambda one: max(one.rests_until, now)
        )

    def feed_urls(self) -> list[str]:
        """Where a feed may be had."""
        return [str(endpoint.base) for endpoint in self._everyone]


def _spelled(url: URL) -> str:
    return str(url).rstrip("/")
