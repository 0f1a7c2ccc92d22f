"""The instances and queues to look at, from the topology document or from an instance's
answer."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from cachesvc.commands.arguments import add_topology, instance_url
from cachesvc.commands.documents import given_topology
from cachesvc.commands.top.scrape import Asker, Silence
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError
from cachesvc.model.printable import printable_in

DEFAULT_URL = "http://127.0.0.1:8080"


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


def add_deployment(parser: argparse.ArgumentParser, environ: Mapping[str, str], purpose: str) -> None:
    """Adds `--topology` and `--url`. `purpose` is a sentence for the document's help."""
    add_topology(parser, environ, purpose)
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        dest="urls",
        metavar="URL",
        help="The URL of an instance, which names the others. Repeatable: the first that answers is used"
        f" (default, without --topology: {DEFAULT_URL}).",
    )


def urls_in(options: argparse.Namespace) -> Sequence[str]:
    """Returns the URLs to ask for the deployment."""
    return [instance_url(url) for url in options.urls] or [DEFAULT_URL]


def declared_in(options: argparse.Namespace) -> Deployment | None:
    """Returns the deployment of the topology document; None if instances have to be asked.

    Raises `ConfigError` for a document that is wrong, or that names no instances.
    """
    if options.urls or options.topology is None:
        return None
    deployment = deployment_of(given_topology(options.topology))
    if not deployment.instances:
        raise ConfigError(f"{options.topology}: $.regions", "name no instances: say --url")
    return deployment


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
