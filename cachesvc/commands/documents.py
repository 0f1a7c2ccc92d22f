"""The documents of a command, and `cachesvc check-config`, which only checks them."""

import argparse
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cachesvc.commands.arguments import add_topology, path_in
from cachesvc.config.environment import service_links
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.namespaces import read_namespaces
from cachesvc.config.service import (
    TOPOLOGY,
    Service,
    named,
    note_anonymous,
    note_region,
    note_together,
    note_unlikely,
    read_service,
    read_topology,
)
from cachesvc.config.topology import Namespace, Topology
from cachesvc.config.workers import count_of, names_of, note_part, note_workers, part_of
from cachesvc.config.zones import doubts_of, note_other_zone
from cachesvc.model.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds `--config`, `--topology` and `--namespaces`."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_CONFIG"),
        help="The service document: settings of this one instance."
        " Default: the file that CACHESVC_CONFIG names; without it, every setting has its default.",
    )
    add_topology(parser, environ, "All instances share it; without it, `serve` starts embedded servers.")
    parser.add_argument(
        "--namespaces",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_NAMESPACES"),
        help="For embedded servers: a document with the part `namespaces` of a topology, and nothing else."
        " It is followed as a topology is. Default: the file that CACHESVC_NAMESPACES names; without it,"
        " there is one look-aside namespace, `pages`.",
    )


def check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Reads and checks both documents, and prints a line about each.

    Without a region, the topology is checked alone, as any instance would take it.
    """
    documents = read_documents(options, environ, is_region_needed=False)
    documents.end(also=documents.doubts)
    if said := passed_over(environ):
        print(f"environment: {said}")
    service, topology = documents.service, documents.topology
    if topology is not None and "region" not in documents.given:
        settings = "its settings are right" if documents.given else "every setting has its default"
        print(f"service: {settings}; it says no region, so none was looked for in the topology")
    else:
        print(f"service: ok, region {service.region}, instance {', '.join(names_of(service))}")
    if topology is None and documents.namespaces is not None:
        count = len(documents.namespaces)
        print(f"namespaces: ok, {count}; serve would run them on the embedded set-up")
    elif topology is None:
        print("topology: none given; serve would run the embedded set-up")
    else:
        counts = (
            f"{len(topology.regions)} regions, {len(topology.cells)} cells,"
            f" {len(topology.namespaces)} namespaces"
        )
        print(f"topology: ok, version {topology.version}, {counts}")
        for doubt in doubts_of(topology):
            print(f"topology: {doubt}")
    return 0


class Documents(NamedTuple):
    """The documents of a command, as far as they can be read."""

    service: Service
    given: Collection[str]
    """The fields of the service document that do not have their default."""
    topology: Topology | None
    namespaces: Mapping[str, Namespace] | None
    """The contracts for embedded servers; None if no document has them."""
    mistakes: Sequence[ConfigError]
    """The mistakes with which no instance starts."""
    doubts: Sequence[ConfigError]
    """Settings that an instance starts with, and that nobody can mean."""

    def end(self, also: Sequence[ConfigError] = ()) -> None:
        """Raises one `ConfigError` with all mistakes, if there are any."""
        _end([*self.mistakes, *also])


def passed_over(environ: Mapping[str, str]) -> str:
    """A sentence about the service links of Kubernetes; empty if there are none."""
    links = service_links(environ)
    return (
        f"{', '.join(links)}: Kubernetes' service links, passed over"
        " (enableServiceLinks: false in the pod's spec leaves them out)"
        if links
        else ""
    )


def read_documents(
    options: argparse.Namespace, environ: Mapping[str, str], *, is_region_needed: bool = True
) -> Documents:
    """Reads both documents and finds their mistakes, and what does not fit between them.

    `is_region_needed`: the default of `region` has to be in the topology, too.
    """
    found, doubts = Mistakes(), Mistakes()
    shared = found.within(TOPOLOGY)
    service, given = read_service(options.config, environ, found)
    topology = None if options.topology is None else read_topology(options.topology, shared)
    namespaces = None if options.namespaces is None else read_namespaces(options.namespaces, shared)
    note_part(service, found)
    if namespaces is not None:
        _note_namespaces(service, namespaces, options, found, shared)
    if topology is None:
        note_anonymous(service.server, None, found)
    else:
        if is_region_needed or "region" in given:
            note_region(service, topology, found, shared)
        note_together(part_of(service), topology, found, shared)
        note_workers(named(service), topology, found, shared)
        doubts = found.copy()
        is_named = "region" in given and bool(service.instance) and count_of(service.server) == 1
        note_unlikely(service, topology, doubts, doubts.within(TOPOLOGY), is_named=is_named)
        note_other_zone(service, topology, doubts)
    told = [_in_document(one, options) for one in doubts.noted() or found.noted()]
    count = len(found.noted())
    return Documents(named(service), given, topology, namespaces, told[:count], told[count:])


def _note_namespaces(
    service: Service,
    namespaces: Mapping[str, Namespace],
    options: argparse.Namespace,
    found: Mistakes,
    shared: Mistakes,
) -> None:
    """Notes contracts that do not go together with the service document, or with a topology."""
    found.require(
        options.topology is None,
        "--namespaces",
        f"is for embedded servers, and the topology {options.topology} names others: write the namespaces"
        " there, or leave out --topology (CACHESVC_TOPOLOGY)",
    )
    found.require(
        service.document.store == "file",
        "$.document.store",
        "is for the topology document: leave it out with --namespaces, which is a file",
    )
    if options.topology is None:
        contracts = Topology(version=1, regions={}, cells={}, namespaces=dict(namespaces))
        note_together(part_of(service), contracts, found, shared)


def given_topology(path: Path) -> Topology:
    """The topology document of a command. Raises `ConfigError`, with the file in each path."""
    shared = Mistakes()
    topology = read_topology(path, shared)
    _end([_in_file(one, path) for one in shared.noted()])
    return topology


def _end(mistakes: Sequence[ConfigError]) -> None:
    if mistakes:
        raise ConfigError(mistakes[0].path, mistakes[0].why, *mistakes[1:])


def _in_document(error: ConfigError, options: argparse.Namespace) -> ConfigError:
    """The mistake with its document's path, because `$.region` alone is in either."""
    if error.path.startswith(TOPOLOGY):
        shared = options.topology or options.namespaces
        return _in_file(ConfigError(error.path.removeprefix(TOPOLOGY), error.why), shared)
    return _in_file(error, options.config)


def _in_file(error: ConfigError, path: Path | None) -> ConfigError:
    return ConfigError(f"{path}: {error.path}", error.why) if path and error.path.startswith("$") else error
