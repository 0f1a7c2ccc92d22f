"""The instances and queues to look at, from the topology document or from an instance's
answer."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from cachesvc.commands.top.scrape import Asker, Silence
from cachesvc.config.topology import Topology
from cachesvc.model.printable import printable_in


class Region(Struct, frozen=True):
    queue: str = ""
    instances: Mapping[str, str] = {}
    operations: Mapping[str, str] = {}
    """URLs of operations ports by instance; one without is asked at its own URL."""


class Here(Struct, frozen=True):
    region: str
    instance: str


class Shown(Struct, frozen=True):
    """The part of `/v1/topology` that is used."""

    here: Here
    regions: Mapping[str, Region]


class Deployment(Struct, frozen=True):
    """The instances and the queues of a deployment."""

    instances: Mapping[str, str]
    """The base URL for operators by name.

    If two regions have an instance of the same name, the region's name stands before it.
    """
    queues: Mapping[str, str]
    """URL by region. A URL from an instance lacks its password."""


def deployment_of(topology: Topology) -> Deployment:
    """The deployment in a topology document."""
    return _deployment(
        {
            name: Region(region.queue, region.instances, region.operations)
            for name, region in topology.regions.items()
        }
    )


async def ask_for_deployment(asker: Asker, urls: Sequence[str]) -> Deployment:
    """Asks instances for the deployment; the first that answers decides.

    What a data port answers has the instances only, so its instance is asked again at its operations
    port.

    If its topology lists no instances, or if none answers, the deployment is the instances that
    were named. One that does not answer is then shown as silent.
    """
    found = {url: _decoded(await asker.topology(url)) for url in urls}
    shown = next((one for one in found.values() if one is not None), None)
    if shown and (url := _operations_of(shown.here, shown.regions)):
        shown = _decoded(await asker.topology(url)) or shown
    deployment = _deployment(shown.regions if shown else {})
    if deployment.instances:
        return deployment
    named = {one.here.instance if one else url: url for url, one in found.items()}
    return Deployment(named, deployment.queues)


def _operations_of(here: Here, regions: Mapping[str, Region]) -> str:
    """The URL of the operations port of the instance that answered; empty if it says none."""
    return regions.get(here.region, Region()).operations.get(here.instance, "").rstrip("/")


def _decoded(document: bytes | Silence) -> Shown | None:
    try:
        return (
            None
            if isinstance(document, Silence)
            else msgspec.convert(printable_in(msgspec.json.decode(document)), Shown)
        )
    except (msgspec.MsgspecError, RecursionError):
        return None


def _deployment(regions: Mapping[str, Region]) -> Deployment:
    times = Counter(name for region in regions.values() for name in region.instances)
    return Deployment(
        {
            name if times[name] == 1 else f"{region_name}/{name}": region.operations.get(name, url).rstrip(
                "/"
            )
            for region_name, region in regions.items()
            for name, url in region.instances.items()
        },
        {name: region.queue for name, region in regions.items() if region.queue},
    )
