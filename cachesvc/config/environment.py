"""Settings from the environment: `CACHESVC_SERVER_PORT=9000` overrides `server.port`.

Every field of the service document that is not itself a section has such a variable: `CACHESVC_`
and the field's path in capitals, joined by `_`. Its value is written as in the document (`250ms`,
`4MiB`, `true`, `[a, b]`). A name with the prefix that is neither a field nor in `NOT_SETTINGS`
stops the start, because a misspelt override that is silently ignored would be noticed in an
incident only.

Kubernetes gives every pod variables that name the services of its namespace
(https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables). A service
called `cachesvc-server` makes these, and one called `cachesvc` the same without `SERVER_`:

    CACHESVC_SERVER_SERVICE_HOST=10.0.0.1       CACHESVC_SERVER_PORT=tcp://10.0.0.1:8080
    CACHESVC_SERVER_SERVICE_PORT=8080           CACHESVC_SERVER_PORT_8080_TCP=tcp://10.0.0.1:8080
    CACHESVC_SERVER_SERVICE_PORT_HTTP=8080      CACHESVC_SERVER_PORT_8080_TCP_PROTO=tcp (_ADDR, …)

They are passed over, also where one has the name of a setting: no setting takes `tcp://…`.
`service_links` tells them from misspelt settings.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any, get_origin

import msgspec

from cachesvc.config.document import as_mapping, parse_text, read_leaf, shown
from cachesvc.config.mistakes import Mistakes
from cachesvc.model.did_you_mean import did_you_mean
from cachesvc.model.errors import ConfigError

PREFIX = "CACHESVC_"

NOT_SETTINGS = {
    "CACHESVC_ENV": "`production` refuses to start the embedded servers. Any other value has no effect.",
    "CACHESVC_CONFIG": "The path of the service document, if `--config` is not given.",
    "CACHESVC_TOPOLOGY": "The path of the topology document, if `--topology` is not given.",
    "CACHESVC_NAMESPACES": "The path of the document of namespaces, if `--namespaces` is not given.",
    "CACHESVC_CDC_POSTGRES": "The database that `cachesvc cdc` reads, if `--postgres` is not given.",
    "CACHESVC_CDC_SLOT": "The replication slot that `cachesvc cdc` reads, if `--slot` is not given.",
    "CACHESVC_DEBUG_TOKEN": "The debug token that `cachesvc top` sends, if `--debug-token` is not given.",
    "CACHESVC_TOKEN": "The bearer token that commands show to instances, if no file is given.",
    "CACHESVC_TOKEN_FILE": "The path of a file with that token, if `--token-file` is not given.",
    "CACHESVC_RUN_DIR": (
        "The directory for the sockets and pid files of embedded servers; it must be private to the user "
        "(mode 0700), and is made if it is not there. If it is not given: `cachesvc` in XDG_RUNTIME_DIR, "
        "else `cachesvc-UID` in the directory for temporary files."
    ),
}
"""Every other variable with the prefix that cachesvc reads, and its meaning."""

_LINK_NAME = re.compile(
    r"(?P<service>[A-Z0-9_]+?)_PORT(?P<port>_\d+_(?:TCP|UDP|SCTP)(?P<part>_PROTO|_PORT|_ADDR)?)?"
)
_LINK_VALUE = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
_SERVICE_NAME = re.compile(r"(?P<service>[A-Z0-9_]+?)_SERVICE_(?:HOST|PORT(?:_[A-Z0-9_]+)?)")


def service_links(environ: Mapping[str, str]) -> list[str]:
    """Returns the names of the variables that Kubernetes made for its services.

    One is told by name and value together. `…_SERVICE_HOST` and `…_SERVICE_PORT` alone may be a
    misspelt `CACHESVC_SERVER_HOST` or `…_PORT`, so they count if the service's host is an address that
    a service can have: nobody listens on a service's address.
    """
    return sorted(name for name in environ if name.startswith(PREFIX) and _is_service_link(name, environ))


def _is_service_link(name: str, environ: Mapping[str, str]) -> bool:
    if (found := _LINK_NAME.fullmatch(name)) and (found["part"] or _LINK_VALUE.fullmatch(environ[name])):
        return True
    if not (found := _SERVICE_NAME.fullmatch(name)):
        return False
    host, port = (environ.get(f"{found['service']}_{end}", "") for end in ("SERVICE_HOST", "PORT"))
    return _is_of_a_service(host) or bool(_LINK_VALUE.fullmatch(port))


def _is_of_a_service(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback)


def overridden(
    document: Any, kind: type[msgspec.Struct], environ: Mapping[str, str], found: Mistakes
) -> dict[str, Any]:
    """Returns the document with the environment's settings in place of its own.

    `document` is not changed. A variable that is no setting, and a value that the field does not
    take, is noted by the variable's name and left out. Kubernetes' service links are passed over.
    """
    fields = dict(settings(kind))
    merged = dict(as_mapping(document, "$", found))
    links = set(service_links(environ))
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or name in links:
            continue
        if name not in fields:
            found.note(name, f"no such setting{did_you_mean(name, [*fields, *NOT_SETTINGS])}")
            continue
        path, leaf_kind = fields[name]
        try:
            value = _read(environ[name], leaf_kind, name)
        except ConfigError as error:
            found.note(error.path, error.why)
        else:
            _put(merged, path, value, found)
    return merged


def _read(text: str, kind: Any, name: str) -> Any:
    """Returns a variable's value. A list is written as in the document: `[a, b]`."""
    if get_origin(kind) is tuple:
        value = parse_text(text, name=name)
        if not isinstance(value, list):
            raise ConfigError(name, f"{shown(text)} is no list: write it as in the document, such as [a, b]")
        return read_leaf(value, kind, name)
    return read_leaf(text, kind, name, strict=False)


def settings(
    kind: type[msgspec.Struct], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[tuple[str, ...], Any]]]:
    """Yields variable name, path and type of every field that is not itself a section."""
    for field in msgspec.structs.fields(kind):
        here = (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings(field.type, here)
        else:
            yield PREFIX + "_".join(here).upper(), (here, field.type)


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any, found: Mistakes) -> None:
    *sections, leaf = path
    here = "$"
    for section in sections:
        here = f"{here}.{section}"
        document[section] = dict(as_mapping(document.get(section), here, found))
        document = document[section]
    document[leaf] = value
