"""The certificates and the Redis user with which commands reach instances and queues.

The variables are those of the service (`CACHESVC_TLS_…`, `CACHESVC_REDIS_…`,
`CACHESVC_SENTINEL_…`), so that a command in an instance's container needs no arguments.
"""

import argparse
import re
import ssl
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from cachesvc.config.environment import PREFIX
from cachesvc.config.service import load_service
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.redis_connections import DEFAULT_ACCESS, Access, access_of
from cachesvc.tiers.tls import LOOK_SECONDS, Certificates

OPTIONS = {
    "--tls-ca": "The file of the authorities that servers' certificates must come from, in PEM.",
    "--tls-cert": "The file of the certificate that is shown to servers, in PEM.",
    "--tls-key": "The file of the certificate's private key, if it is another one.",
    "--tls-server-name": "The name that servers' certificates must have, in place of their hosts.",
}
"""The arguments for https:// and rediss://, and their meaning."""


class Reach(NamedTuple):
    """The means by which a command reaches a deployment."""

    https: ssl.SSLContext | bool = True
    """For instances, as aiohttp's connectors take it; True: the system's authorities."""
    queues: Access = DEFAULT_ACCESS


def add_access(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Adds the arguments for TLS. The Redis user comes from the environment only."""
    given = {
        name: value for name, value in environ.items() if re.match(PREFIX + "(?:TLS|REDIS|SENTINEL)_", name)
    }
    parser.set_defaults(access_environ=given)
    for option, meaning in OPTIONS.items():
        variable = _variable_of(option)
        parser.add_argument(
            option,
            default="",
            metavar="TEXT" if "name" in option else "FILE",
            help=f"{meaning} Default: {variable}.",
        )


def reach_of(options: argparse.Namespace) -> Reach:
    """Returns what the command line and the environment say.

    Raises `ConfigError`. The files are watched until the process ends.
    """
    given = dict(options.access_environ)
    for option in OPTIONS:
        if value := getattr(options, option.removeprefix("--").replace("-", "_")):
            given[_variable_of(option)] = value
    if not given:
        return Reach()
    try:
        service = load_service(None, given)
    except ConfigError as error:
        raise _as_given(error, options) from None
    certificates = Certificates(service)
    reach = Reach(
        certificates.clients("instances") or True,
        access_of(service.redis, "queues", service.sentinel, certificates.clients("redis")),
    )
    if certificates.is_used:
        threading.Thread(target=_watch, args=(certificates,), name="certificates", daemon=True).start()
    return reach


def _as_given(error: ConfigError, options: argparse.Namespace) -> ConfigError:
    """The same mistakes, with the option or the variable that each stands in."""
    first, *others = (ConfigError(_place_of(one.path, options), one.why) for one in error.each())
    return ConfigError(first.path, first.why, *others)


def _place_of(path: str, options: argparse.Namespace) -> str:
    fields = path.removeprefix("$.").replace("_", ".").split(".")
    option = f"--{'-'.join(fields)}"
    if option in OPTIONS and getattr(options, "_".join(fields)):
        return option
    return f"{PREFIX}{'_'.join(fields).upper()}" if path.startswith("$") else path


def _variable_of(option: str) -> str:
    return f"{PREFIX}{option.removeprefix('--').replace('-', '_').upper()}"


def _watch(certificates: Certificates) -> None:
    while True:
        time.sleep(LOOK_SECONDS)
        certificates.look()
