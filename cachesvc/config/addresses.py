"""The addresses in a document: a mistake is said before anything connects to it.

A driver would find the same mistakes at the first connection, in words of its own, or never:
`redis://h/tenants` leads redis-py to database 0. Each function returns the mistake, for people, or
an empty text. Texts that may hold a password are not repeated.
"""

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct

MOST_PORTS = 65535
TLS_PREFIX = "tls:"
"""Stands before the address of a memcached server that speaks TLS."""
_NAME = re.compile(r"(?!-)[\w-]{1,63}(?:\.[\w-]{1,63})*\.?")
_NUMBER = re.compile(r"[0-9]{1,9}")
_USERINFO = re.compile(r"(?<=//)[^/?#]*@")
_REDIS_QUERY = re.compile(r"db|username|password")
_SENTINEL_QUERY = re.compile(r"sentinel_(?:username|password)")
_SENTINEL_SCHEME = re.compile(r"(rediss?)\+sentinel://")
_MASTER_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
REDIS_URLS = "redis://host:port/db, redis+sentinel://host,host,host/name/db or unix:///path?db=0"
"""The forms of a Redis server's URL, for people."""
SENTINEL_PORT = 26379
"""The port of a sentinel whose address names none; it is the servers' default, too."""
_TLS_QUERY = re.compile(
    r"ssl_(?:keyfile|certfile|cert_reqs|ca_certs|ca_data|check_hostname|ciphers|password)"
)
_CERTIFICATES = ("none", "optional", "required")
_KEY = "{key}"
_PREFIX = re.compile(r"[A-Za-z0-9_./-]{0,128}")
_URL_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?@!$&'()*+,;=\[\]-]|%[0-9A-Fa-f]{2})*")
_DOTS = re.compile(r"(?:\.|%2[Ee])+")


def without_userinfo(url: str) -> str:
    """Returns a URL for a message: `***` stands for its user and password."""
    return _USERINFO.sub("***@", url)


def address(host: str, port: int) -> str:
    """Returns `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_wildcard(host: str) -> bool:
    """True if the host stands for all addresses of a machine: nobody can ask it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def host_fault(host: str) -> str:
    """Says what is wrong with a host alone: a name, an IPv4 address, or an IPv6 address."""
    if not host:
        return "it names no host"
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return "its host is no IP address"
        return ""
    return "" if _NAME.fullmatch(host) and len(host) <= 253 else "its host is neither a name nor an address"


def http_fault(url: str, *, userinfo: bool = False) -> str:
    """Says what is wrong with the URL of an HTTP server.

    `userinfo`: the URL may hold user and password.
    """
    if not url.startswith(("http://", "https://")):
        return "it begins neither with http:// nor with https://"
    if not userinfo and "@" in _netloc(url):
        return "it may not hold a user or password"
    return _server_fault(url)


def base_url_fault(url: str) -> str:
    """Says what is wrong with the base URL of an instance, to which paths are added."""
    if fault := http_fault(url):
        return fault
    return "it has a query or a fragment" if "?" in url or "#" in url else ""


def memcached_fault(address: str) -> str:
    """Says what is wrong with `host:port`, `tls:host:port` or `unix:/path`."""
    address = address.removeprefix(TLS_PREFIX)
    if address.startswith("unix:"):
        if not address.startswith("unix:/") or address == "unix:/":
            return "after unix: comes the whole path of the socket"
        return "" if "\0" not in address else "a path holds no NUL"
    if "://" in address:
        return "leave out what comes before ://"
    if any(sign in address for sign in "@/?#"):
        return "it may hold host and port only"
    return _server_fault(f"tcp://{address}") or ("" if _port(address) else "it names no port")


def store_fault(store: str) -> str:
    """Says what is wrong with the place of the topology document."""
    if store in ("file", "queue"):
        return ""
    if not store.startswith(("etcd://", "etcds://")):
        return f"{without_userinfo(store)!r} is none of file, queue and etcd://host:port/prefix"
    servers, _, prefix = store.partition("://")[2].partition("/")
    for server in servers.split(","):
        if fault := http_fault(f"http://{server}"):
            return f"must be etcd://host:port,host:port/prefix: {fault}"
    return "" if _PREFIX.fullmatch(prefix) else "must end with a prefix of letters, digits and -_./ alone"


class Watched(Struct, frozen=True):
    """A Redis server that sentinels know by a name, and whose address they tell."""

    name: str
    """The master's name, as `sentinel monitor` gives it."""
    sentinels: Sequence[tuple[str, int]]
    """Host and port of each sentinel."""
    url: str
    """The URL of the server. The master's name stands in it in place of host and port."""
    sentinel_url: str
    """The URL of a sentinel, also with that name in place of host and port."""


def is_watched(url: str) -> bool:
    """True if the URL is `redis(s)+sentinel://…`, which names sentinels in place of a server."""
    return _SENTINEL_SCHEME.match(url) is not None


def watched_in(url: str) -> Watched | None:
    """Returns what `redis(s)+sentinel://user:password@host:port,host/name/db` says.

    None for another URL. The URL must be one that `redis_fault` finds nothing wrong with.
    """
    found = _SENTINEL_SCHEME.match(url)
    if found is None:
        return None
    before, _, query = url[found.end() :].partition("?")
    places, _, path = before.partition("/")
    userinfo, at, hosts = places.rpartition("@")
    name, slash, database = path.partition("/")
    given = parse_qsl(query, keep_blank_values=True)
    own = [(key.removeprefix("sentinel_"), value) for key, value in given if _SENTINEL_QUERY.fullmatch(key)]
    rest = [(key, value) for key, value in given if not _SENTINEL_QUERY.fullmatch(key)]
    tls = [(key, value) for key, value in rest if _TLS_QUERY.fullmatch(key)]
    return Watched(
        name,
        tuple(_host_and_port(one) for one in hosts.split(",")),
        f"{found[1]}://{userinfo}{at}{name}{slash}{database}" + (f"?{urlencode(rest)}" if rest else ""),
        f"{found[1]}://{name}" + (f"?{urlencode([*own, *tls])}" if own or tls else ""),
    )


def _host_and_port(place: str) -> tuple[str, int]:
    parts = urlsplit(f"tcp://{place}")
    return parts.hostname or "", parts.port or SENTINEL_PORT


def redis_fault(url: str) -> str:
    """Says what is wrong with a URL of a Redis server.

    It is `redis(s)://host:port/db`, `redis(s)+sentinel://host:port,host:port/name/db` or
    `unix:///path?db=0`.
    """
    if found := _SENTINEL_SCHEME.match(url):
        return _sentinel_fault(url[found.end() :].partition("?")[0])
    scheme, colon, rest = url.partition("://")
    if scheme == "unix" and colon:
        if not rest.startswith("/") or not rest.partition("?")[0].strip("/"):
            return "after unix:// comes the whole path of the socket"
        return "" if rest.isprintable() else "it holds a control character"
    if scheme not in ("redis", "rediss") or not colon:
        return "its scheme is another"
    return _server_fault(url) or _database_fault(url)


def redis_query_fault(url: str) -> str:
    """Says what is wrong with the part of a Redis URL after `?`."""
    for name, value in parse_qsl(url.partition("#")[0].partition("?")[2], keep_blank_values=True):
        known = (
            _REDIS_QUERY.fullmatch(name)
            or (url.startswith("rediss") and _TLS_QUERY.fullmatch(name))
            or (is_watched(url) and _SENTINEL_QUERY.fullmatch(name))
        )
        if not known:
            return f"{name[:40]!r} is no setting that it may hold (db, username, password; rediss: ssl_…)"
        if name == "ssl_cert_reqs" and value not in _CERTIFICATES:
            return f"its ssl_cert_reqs is none of {', '.join(_CERTIFICATES)}"
        if name == "db" and not _NUMBER.fullmatch(value):
            return "its db is no number"
    return ""


def place_of(address: str) -> str:
    """Returns the address in one spelling: two addresses of one place have the same."""
    address = address.removeprefix(TLS_PREFIX)
    if (watched := watched_in(address)) is not None:
        sentinels = ",".join(sorted(f"{host}:{port}" for host, port in watched.sentinels))
        return f"{place_of(watched.url)} {sentinels}"
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        port = parts.port or {"http": 80, "https": 443, "redis": 6379, "rediss": 6379}.get(parts.scheme, 0)
    except ValueError:
        return address
    if address.startswith("unix:") or not parts.hostname:
        return address
    path = parts.path.strip("/")
    if parts.scheme in ("redis", "rediss"):
        path = dict(parse_qsl(parts.query)).get("db") or path or "0"
    return f"{parts.hostname} {port} {path}"


def origin_fault(url: str) -> str:
    """Says what is wrong with the URL of an origin, in which `{key}` stands once.

    A key stays inside the one path segment, or query value, that `{key}` stands in.
    """
    before, place, after = url.partition(_KEY)
    if not place or _KEY in after:
        return f"{without_userinfo(url)!r} must hold {_KEY} once"
    if fault := http_fault(url.replace(_KEY, "key"), userinfo=True):
        return f"{without_userinfo(url)!r} is no http(s)://host/path URL: {fault}"
    if before.count("/") < 3:
        return "a key must not choose the host: put {key} in the path, or in the query after it"
    if not (_URL_CHARACTERS.fullmatch(before) and _URL_CHARACTERS.fullmatch(after)):
        return "it holds a character that a URL cannot have, or a fragment: percent-encode it"
    if _DOTS.fullmatch(before.rpartition("/")[2] + after.partition("/")[0]):
        return "with dots alone around {key}, a key of dots would change the path"
    return ""


def _netloc(url: str) -> str:
    """Returns host, port and user of a URL; an empty text if it cannot be split."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _server_fault(url: str) -> str:
    """Says what is wrong with the host and port of a URL."""
    if not url.isprintable() or " " in url:
        return "it holds a space or a control character"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an IPv6 address stands in brackets, such as [::1]"
    server = parts.netloc.rpartition("@")[2]
    host, bracket, port = server.rpartition("]")
    if not bracket:
        host, _, port = server.partition(":")
        port = port and f":{port}"
    if port.count(":") > 1:
        return "an IPv6 address stands in brackets, such as [::1]"
    if fault := host_fault(host.removeprefix("[")):
        return fault
    if port and not (_NUMBER.fullmatch(port[1:]) and 1 <= int(port[1:]) <= MOST_PORTS):
        return f"its port is not 1 to {MOST_PORTS}"
    return ""


def _sentinel_fault(rest: str) -> str:
    """Says what is wrong with what comes after `redis+sentinel://`, up to its query."""
    places, slash, path = rest.partition("/")
    name, _, database = path.partition("/")
    if not (slash and name):
        return "after the sentinels comes the name of the master, such as /mymaster"
    if not _MASTER_NAME.fullmatch(name):
        return "the name of its master may hold letters, digits and ._- only"
    for place in places.rpartition("@")[2].split(","):
        if fault := _server_fault(f"tcp://{place}"):
            return fault
    return _database_fault(f"redis://{name}/{database}")


def _port(address: str) -> str:
    return address.rpartition("]")[2].rpartition(":")[2] if ":" in address.rpartition("]")[2] else ""


def _database_fault(url: str) -> str:
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if parts.fragment or (database and not _NUMBER.fullmatch(database)):
        return "after the host comes the number of a database, such as /0"
    return ""
