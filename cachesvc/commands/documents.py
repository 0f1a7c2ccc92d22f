import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from cachesvc.config.service import Service, check_together, load_service, load_topology
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError


def check_config(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Read and check both documents, and say what they are."""
    service, topology = _load(options, environ)
    print(f"service: ok, region {service.region}, instance {service.instance}")
    if topology is None:
        print("topology: none given; serve would run the embedded set-up")
    else:
        counts = f"{len(topology.regions)} regions, {len(topology.cells)} cells, {len(topology.namespaces)} namespaces"
        print(f"topology: ok, version {topology.version}, {counts}")
    return 0


def _load(options: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Service, Topology | None]:
    service = _load_service(options.config, environ)
    return service, _load_topology(options.topology, service)


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
    """With two documents `$.region` alone would not say which file to open."""
    return ConfigError(f"{path}: {error.path}", error.why) if path and error.path.startswith("$") else error


def _fail(code: int, message: str) -> int:
    print(f"cachesvc: {message}", file=sys.stderr)
    return code


def _documents(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "--config", type=Path, default=_path(environ, "CACHESVC_CONFIG"), help="service document"
    )
    parser.add_argument(
        "--topology", type=Path, default=_path(environ, "CACHESVC_TOPOLOGY"), help="shared document"
    )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
