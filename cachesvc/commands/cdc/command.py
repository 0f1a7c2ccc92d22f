"""`cachesvc cdc` reads what PostgreSQL commits, until Ctrl-C or SIGTERM.

    cachesvc cdc setup --postgres postgresql://admin@db/shop --topology topology.yaml --role reader
    cachesvc cdc --postgres postgresql://reader@db/shop --topology topology.yaml --region eu

One reader of a slot is enough for all regions. A second one waits until the first is gone. The
driver is an extra: `pip install 'cachesvc[postgres]'`.
"""

import argparse
import asyncio
import contextlib
import importlib.util
from collections.abc import Mapping

from cachesvc.commands.access import add_access, reach_of
from cachesvc.commands.arguments import add_announcing_region, add_topology, utf8
from cachesvc.commands.documents import given_topology
from cachesvc.config.service import Service, load_service
from cachesvc.config.topology import Topology
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.logs import logs

POSTGRES, SLOT = "CACHESVC_CDC_POSTGRES", "CACHESVC_CDC_SLOT"
"""The variables that stand for `--postgres` and `--slot`."""
LOG_SETTINGS = ("CACHESVC_TELEMETRY_LOG_LEVEL", "CACHESVC_TELEMETRY_LOG_FORMAT")


def add_arguments(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        choices=("read", "setup"),
        default="read",
        help="`read` reads the slot until it is stopped (the default); `setup` prints the SQL that the"
        " database needs: a role, a publication, and the slot.",
    )
    add("--apply", action="store_true", help="Runs the SQL that `setup` prints.")
    add(
        "--role",
        type=utf8,
        default="",
        metavar="NAME",
        help="The role that `cdc` is to log in as (setup). It may read slots, and no table.",
    )
    add(
        "--postgres",
        default=environ.get(POSTGRES, ""),
        metavar="URL",
        help="The database, postgresql://user@host:port/database, as libpq takes it. Give the password in"
        f" PGPASSWORD or a .pgpass file: the command line is for all to see. Default: {POSTGRES}.",
    )
    add(
        "--slot",
        type=utf8,
        default=environ.get(SLOT, "cachesvc"),
        metavar="NAME",
        help=f"The replication slot. Default: {SLOT}, else `cachesvc`.",
    )
    add(
        "--publication",
        type=utf8,
        default="cachesvc",
        metavar="NAME",
        help="The publication with the tables (default: %(default)s).",
    )
    add(
        "--most-names",
        type=int,
        default=100_000,
        metavar="N",
        help="The most names of keys and tags that are held for open transactions. One with more fences the"
        " namespaces it concerns (default: %(default)s).",
    )
    add(
        "--listen",
        default="127.0.0.1:8089",
        metavar="HOST:PORT",
        help="The address of /metrics, /livez and /readyz; empty: none (default: %(default)s).",
    )
    add_topology(parser, environ, "Its `sources` say which rows concern which keys.")
    add_announcing_region(parser, environ)
    add_access(parser, environ)


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Reads until it is stopped, and returns the exit code.

    Raises `ConfigError`, and `OSError` if `--listen` cannot be had.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError("psycopg", "is not installed: pip install 'cachesvc[postgres]'")
    from cachesvc.changes.postgres.connection import url_fault  # these need the driver
    from cachesvc.commands.cdc.reading import read
    from cachesvc.commands.cdc.set_up import set_up

    if not options.postgres:
        raise ConfigError("--postgres", f"is not given, and {POSTGRES} is not set: which database?")
    if fault := url_fault(options.postgres):
        raise ConfigError("--postgres", fault)  # the URL is not repeated: it may hold a password
    if options.most_names < 1:
        raise ConfigError("--most-names", "must be above 0")
    topology = _topology(options)
    if options.what == "setup":
        return asyncio.run(set_up(options, topology))
    logs.set_up(_logging(options, environ))
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(read(options, topology, reach_of(options).queues))
    return 0


def _logging(options: argparse.Namespace, environ: Mapping[str, str]) -> Service:
    """Returns the settings of logs. A line names the region, and the slot as the instance."""
    named = {"CACHESVC_REGION": options.region, "CACHESVC_INSTANCE": options.slot}
    given = {name: environ[name] for name in LOG_SETTINGS if name in environ}
    return load_service(None, {**named, **given})


def _topology(options: argparse.Namespace) -> Topology:
    if options.topology is None:
        raise ConfigError("--topology", "is not given: its `sources` say which rows concern which keys")
    topology = given_topology(options.topology)
    if options.what == "read" and options.region not in topology.regions:
        raise ConfigError(
            "--region", f"no region {options.region!r}{did_you_mean(options.region, topology.regions)}"
        )
    if not any(namespace.sources for namespace in topology.namespaces.values()):
        raise ConfigError("--topology", "no namespace has `sources`: there is nothing to read for anybody")
    return topology
