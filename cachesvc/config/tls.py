"""The `tls` blocks of the service document, and the contexts that are made of their files.

A context is made anew from all of its files: a live context could only be given more authorities,
never fewer, and one whose new key does not fit the new certificate would be left without a key.
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import asdict

from cachesvc.config.addresses import host_fault
from cachesvc.config.mistakes import Mistakes
from cachesvc.model.errors import ConfigError
from cachesvc.model.units import Duration

SYSTEM = "system"
"""The word for the authorities that the system trusts."""
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    """The certificates for connections that are opened to servers. TLS 1.2 is the least.

    The files are PEM, and are looked at every few seconds: new connections use renewed ones.
    """

    ca: str = ""
    """The file of the authorities that a server's certificate must come from. `system`, or
    empty: those that the system trusts."""
    cert: str = ""
    """The file of the certificate that is shown to servers that ask for one, with its chain.

    Empty: none is shown."""
    key: str = ""
    """The file of the private key of `cert`, without a passphrase.

    Empty: `cert` holds it, too."""
    server_name: str = ""
    """The name that a server's certificate must have, in place of the host in its address.

    It is meant for servers that are reached by addresses that their certificates do not name."""


class ClientTls(Tls, frozen=True, forbid_unknown_fields=True):
    """The certificates for all connections that an instance opens with TLS.

    That are `rediss://…`, `tls:host:port` and `https://…`. A block for one kind of server stands in
    place of the fields here, whole, if any of its fields is given.
    """

    redis: Tls = field(default_factory=Tls)
    """For cells and queues."""
    memcached: Tls = field(default_factory=Tls)
    """For memcached servers."""
    origins: Tls = field(default_factory=Tls)
    """For origins; `ca: system` if they are public ones."""
    instances: Tls = field(default_factory=Tls)
    """For other instances."""
    otlp: Tls = field(default_factory=Tls)
    """For the receiver of telemetry."""
    etcd: Tls = field(default_factory=Tls)
    """For the etcd that has the topology document (`etcds://…`)."""


class ListenerTls(Struct, frozen=True, forbid_unknown_fields=True):
    """TLS of a listening port. TLS 1.2 is the least.

    The files are PEM, and are looked at every few seconds: new connections use renewed ones.
    """

    cert: str = ""
    """The file of the certificate that callers are shown, with its chain. Empty: the port
    speaks plain HTTP."""
    key: str = ""
    """The file of the private key of `cert`, without a passphrase.

    Empty: `cert` holds it, too."""
    ca: str = ""
    """The file of the authorities that a caller's certificate must come from."""
    client_certificates: Literal["none", "optional", "required"] = "none"
    """`optional`: a caller may show a certificate; `required`: it must. One that does not
    come from `ca` ends the connection. Both need `ca`."""
    handshake_timeout: Duration = Duration.parse("5s")
    """How long a handshake may take; then its connection is closed. Until it ends, it counts
    as an idle connection, which is closed first where room is needed. It must be longer than 0."""


def is_given(block: Tls | ListenerTls) -> bool:
    """True if a field of the block was given, apart from the blocks inside it."""
    default = asdict(type(block)())
    return any(one != default[name] for name, one in asdict(block).items() if not isinstance(one, Tls))


def client_block(tls: ClientTls, kind: str) -> tuple[str, Tls]:
    """Returns the path and the block that hold for one kind of server."""
    own: Tls = getattr(tls, kind)
    return (f"tls.{kind}", own) if is_given(own) else ("tls", tls)


def client_context(block: Tls, path: str) -> ssl.SSLContext:
    """Returns a context for connections to servers. Raises `ConfigError`; reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if block.ca in ("", SYSTEM):
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(context, block.ca, path)
    if block.cert:
        _load_certificate(context, block, path)
    return context


def listener_context(block: ListenerTls, path: str) -> ssl.SSLContext:
    """Returns a context for connections of callers. Raises `ConfigError`; reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    _load_certificate(context, block, path)
    if block.client_certificates != "none":
        _load_authorities(context, block.ca, path)
        is_required = block.client_certificates == "required"
        context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL
    return context


def _load_authorities(context: ssl.SSLContext, file: str, path: str) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise ConfigError(f"{path}.ca", f"{file} holds no certificate in PEM") from None
    except OSError as error:
        raise ConfigError(f"{path}.ca", f"cannot be read: {error.strerror}: {file}") from error


def _load_certificate(context: ssl.SSLContext, block: Tls | ListenerTls, path: str) -> None:
    for name, file in (("cert", block.cert), ("key", block.key or block.cert)):
        try:
            text = Path(file).read_text(encoding="ascii")
        except OSError as error:
            raise ConfigError(f"{path}.{name}", f"cannot be read: {error.strerror}: {file}") from error
        except UnicodeDecodeError:
            text = ""
        if (_BEGIN if name == "cert" else "PRIVATE KEY-----") not in text:
            what = "certificate" if name == "cert" else "private key"
            raise ConfigError(f"{path}.{name}", f"{file} holds no {what} in PEM")
        if "ENCRYPTED" in text:
            raise ConfigError(f"{path}.{name}", f"{file} has a passphrase: give a key without one")
    try:
        context.load_cert_chain(block.cert, block.key or None, password=_no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", "") or str(error)
        if why == "KEY_VALUES_MISMATCH":
            why = "its private key is that of another certificate"
        raise ConfigError(f"{path}.cert", f"{block.cert} cannot be used: {why}") from None


def _no_passphrase() -> str:
    """Keeps OpenSSL from asking for a passphrase on the terminal."""
    raise ValueError("the key has a passphrase")


def check_listener(block: ListenerTls, path: str, found: Mistakes) -> None:
    """Notes what is wrong with the block, or with its files."""
    if not is_given(block):
        return
    asks = block.client_certificates != "none"
    found.require(
        bool(block.cert), f"{path}.cert", "is missing: without a certificate the port is plain HTTP"
    )
    found.require(
        not asks or bool(block.ca), f"{path}.ca", "is missing: client_certificates needs their authorities"
    )
    found.require(
        asks or not block.ca,
        f"{path}.client_certificates",
        "is none, so `ca` has no use: say optional or required",
    )
    found.require(block.handshake_timeout > 0, f"{path}.handshake_timeout", "must be longer than 0")
    if block.cert and (block.ca or not asks):
        try:
            listener_context(block, path)
        except ConfigError as error:
            found.note_unread(error.path, error.why)


def check_clients(tls: ClientTls, path: str, found: Mistakes) -> None:
    """Notes what is wrong with the blocks, or with their files."""
    for kind in ("", "redis", "memcached", "origins", "instances", "otlp", "etcd"):
        block, here = (getattr(tls, kind), f"{path}.{kind}") if kind else (tls, path)
        if not is_given(block):
            continue
        found.require(
            bool(block.cert) or not block.key, f"{here}.cert", "is missing: `key` is that of a `cert`"
        )
        fault = block.server_name and host_fault(block.server_name)
        found.require(not fault, f"{here}.server_name", f"{block.server_name!r} is no host name alone")
        try:
            client_context(block, here)
        except ConfigError as error:
            found.note_unread(error.path, error.why)


def ends_of(file: str, *, is_ca: bool) -> datetime | None:
    """Returns when the certificates of a file end; None if that cannot be read.

    A chain ends with the first of its certificates, a file of authorities with the last of them.
    """
    try:
        text = Path(file).read_text(encoding="ascii")
        ends = [_end_of(ssl.PEM_cert_to_DER_cert(one)) for one in _certificates(text)]
    except (OSError, ValueError, IndexError):
        return None
    return (max if is_ca else min)(ends, default=None)


def _certificates(text: str) -> Iterator[str]:
    for part in text.split(_BEGIN)[1:]:
        yield f"{_BEGIN}{part.partition(_END)[0]}{_END}\n"


def _end_of(der: bytes) -> datetime:
    """Returns the end of a certificate's validity.

    Certificate → tbsCertificate → [version,] serial, algorithm, issuer, validity (RFC 5280, 4.1).
    """
    _, at, _ = _element(der, 0)
    _, at, _ = _element(der, at)
    tag, _, after = _element(der, at)
    for _ in range(4 if tag == 0xA0 else 3):
        at, after = after, _element(der, after)[2]
    _, begin, _ = _element(der, at)
    _, _, until = _element(der, begin)
    tag, start, stop = _element(der, until)
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(der[start:stop].decode("ascii"), form).replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Returns tag, begin and end of the contents of the element at this place (X.690, 8.1)."""
    size, begin = der[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7F
        size, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return der[at], begin, begin + size
