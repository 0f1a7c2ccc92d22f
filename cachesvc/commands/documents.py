"""The two documents of a command, and `cachesvc check-config`, which only checks them."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from cachesvc.commands.arguments import add_topology, path_in
from cachesvc.config.environment import service_links
from cachesvc.config.service import Service, check_together, load_service, load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds `--config` and `--topology`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_CONFIG"),
        help="The service document: settings of this one instance."
        " Default: the file that CACHESVC_CONFIG names; without it, every setting has its default.",
    )
    add_topology(parser, environ, "All instances share it; without it, `serve` starts embedded servers.")


def check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Reads and checks both documents, and prints a line about each."""
    service, topology = load_documents(options, environ)
    if said := passed_over(environ):
        print(f"environment: {said}")
    print(f"service: ok, region {service.region}, instance {service.instance}")
    if topology is None:
        print("topology: none given; serve would run the embedded set-up")
    else:
        counts = (
            f"{len(topology.regions)} regions, {len(topology.cells)} cells,"
            f" {len(topology.namespaces)} namespaces"
        )
        print(f"topology: ok, version {topology.version}, {counts}")
    return 0


def load_documents(
    options: argparse.Namespace, environ: Mapping[str, str]
) -> tuple[Service, Topology | None]:
    """Both documents, each valid and fit for the other. Raises `ConfigError`."""
    service = _load_service(options.config, environ)
    return service, _load_topology(options.topology, service)


def passed_over(environ: Mapping[str, str]) -> str:
    """A sentence about the service links of Kubernetes; empty if there are none."""
    links = service_links(environ)
    return (
        f"{', '.join(links)}: Kubernetes' service links, passed over"
        " (enableServiceLinks: false in the pod's spec leaves them out)"
        if links
        else ""
    )


def _load_service(path: Path | None, environ: Mapping[str, str]) -> Service:
    try:
        return load_service(path, environ)
    except ConfigError as error:
        raise _in_document(error, path) from error


def _load_topology(path: Path | None, service: Service) -> Topology | None:
    if path is None:
        return None
    try:
        topology = load_topology(path)
    except ConfigError as error:
        raise _in_document(error, path) from error
    check_together(service, topology)
    return topology


def _in_document(error: ConfigError, path: Path | None) -> ConfigError:
    """The error with the document's path, because `$.region` alone is in either."""
    return ConfigError(f"{path}: {error.path}", error.why) if path and error.path.startswith("$") else error
