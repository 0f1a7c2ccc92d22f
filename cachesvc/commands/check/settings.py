"""The settings of a run: the deployment, the load, and the promises that are judged."""

import secrets
from collections.abc import Mapping
from random import Random

from msgspec import Struct, field

from cachesvc.commands.access import Reach
from cachesvc.commands.credential import Credential
from cachesvc.config.service import Coherence
from cachesvc.config.topology import Namespace, Topology
from cachesvc.model.errors import ConfigError

_DEFAULTS = Coherence()

NAMESPACE_YAML = """\
  {namespace}:
    owner: platform
    ttl: 1m
    origin: {{url: "http://{address}/check/{{key}}"}}   \
# the checker's own; leave the line out to check it look-aside"""


class LoadDelays(Struct, frozen=True):
    """How slow the origin is: most loads take no time, some are slow, and a few outlast their
    lease."""

    slow: float = 0.05
    """The share of loads that take up to `longest_seconds`."""
    longest_seconds: float = 2.0
    late: float = 0.005
    """The share of loads that take `late_seconds`."""
    late_seconds: float = 5.5

    def draw(self, random: Random) -> float:
        """The seconds that the next load takes."""
        chance = random.random()
        if chance < self.late:
            return self.late_seconds
        return random.uniform(0, self.longest_seconds) if chance < self.late + self.slow else 0.0


AT_ONCE = LoadDelays(slow=0, late=0)


class CheckSettings(Struct, frozen=True):
    """The settings of one run."""

    instances: Mapping[str, str]
    """Base URL by `region/instance`, of all regions: a missing instance could serve stale
    copies unseen."""
    queues: Mapping[str, str] = field(default_factory=dict)
    """URL of the queue's Redis by region, for raw change events. Empty: all changes are
    announced through the API."""
    namespace: str = "check"
    look_aside: bool = False
    origin_host: str = "127.0.0.1"
    origin_port: int = 9200
    """The address of the origin that read-through instances load from. Not opened for a
    look-aside namespace."""
    seed: int = 1
    duration_seconds: float = 60.0
    """The length of the load. Settling and the last sweep come after it."""
    keys: int = 20
    tags: int = 3
    clients: int = 8
    rate: float = 100.0
    """Operations per second of all clients together."""
    read_share: float = 0.95
    """The share of reads in the operations. Each write empties the caches of its keys: with
    more writes on so few keys it is no cache any more, and C9 says so. A run that only looks for
    races finds more with 0.7."""
    deadline_seconds: float = 2.0
    """The `Cachesvc-Timeout` of each read."""
    delays: LoadDelays = LoadDelays()
    max_lag_us: int = 2_000_000
    heartbeat_us: int = int(_DEFAULTS.heartbeat)
    skew_us: int = int(_DEFAULTS.max_clock_skew)
    credential: Credential = field(default_factory=Credential)
    """The bearer token that instances are shown."""
    reach: Reach = Reach()
    """The certificates and the login for instances and queues."""
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    """A part of every key and tag. Copies of an earlier run's keys would count other writes."""

    @property
    def origin_address(self) -> str:
        return f"{self.origin_host}:{self.origin_port}"

    @property
    def settle_seconds(self) -> float:
        """The time after the last announcement, with a margin, from which every instance has to
        return the newest writes."""
        return (self.max_lag_us + self.heartbeat_us + 3 * self.skew_us) / 1e6


def deployment_of(topology: Topology, namespace: str, origin_address: str) -> CheckSettings:
    """The settings for a topology document's deployment, with the default load.

    Raises `ConfigError` if there is no such namespace, or if it loads from elsewhere than the
    checker's `origin_address` (host:port).
    """
    host, port = address_of(origin_address, "--origin-listen")
    declared = topology.namespaces.get(namespace)
    if declared is None:
        yaml = namespace_yaml(namespace, origin_address)
        raise ConfigError(
            "$.namespaces", f"no namespace {namespace!r} for the checker. Add and deploy:\n{yaml}"
        )
    _check_origin(namespace, declared, origin_address)
    return CheckSettings(
        instances={
            f"{name}/{instance}": url
            for name, region in topology.regions.items()
            for instance, url in region.instances.items()
        },
        queues={name: region.queue for name, region in topology.regions.items()},
        namespace=namespace,
        look_aside=declared.origin is None,
        origin_host=host,
        origin_port=port,
        delays=LoadDelays(late_seconds=declared.lease / 1e6 + 0.5),
        max_lag_us=int(declared.max_lag),
    )


def namespace_yaml(namespace: str, origin_address: str) -> str:
    """The lines that the checker needs in a topology document, to paste under `namespaces:`."""
    return NAMESPACE_YAML.format(namespace=namespace, address=origin_address)


def address_of(text: str, option: str) -> tuple[str, int]:
    """Host and port of an option's value. Raises `ConfigError`."""
    host, _, port = text.rpartition(":")
    if not (host and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(option, f"{text!r} is no address: write host:port, such as 127.0.0.1:9200")
    return host, int(port)


def _check_origin(name: str, namespace: Namespace, address: str) -> None:
    """Raises `ConfigError` unless the namespace loads from the checker.

    Only port and path are compared: instances may know the checker's machine by another name.
    """
    expected = f":{address.rpartition(':')[2]}/check/{{key}}"
    if namespace.origin is not None and not namespace.origin.url.endswith(expected):
        raise ConfigError(
            f"$.namespaces.{name}.origin.url",
            f"is {namespace.origin.url}, and the checker's own origin is http://{address}/check/{{key}}:"
            " without it the values "
            "cannot be judged. Change the URL, or say with --origin-listen where the checker is to listen",
        )
