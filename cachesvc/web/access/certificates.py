"""The name in a client certificate, which TLS has checked."""

import ssl
from collections.abc import Mapping
from typing import Any

from cachesvc.model.clock import SECONDS


def certificate_name(certificate: Mapping[str, Any] | None) -> str:
    """Returns the SPIFFE id of a certificate, else its first DNS name; empty if it has none.

    `certificate` has the form of `ssl.SSLSocket.getpeercert()`. An X.509-SVID has one SPIFFE id; with
    several it would be nobody's choice who is meant, so none counts. The subject is not looked at, as
    RFC 9525 has it.
    """
    names = (certificate or {}).get("subjectAltName", ())
    spiffe = [value for kind, value in names if kind == "URI" and value.startswith("spiffe://")]
    dns = [value for kind, value in names if kind == "DNS" and "/" not in value]
    if spiffe:
        return spiffe[0] if len(spiffe) == 1 else ""
    return next(iter(dns), "")


def end_us_of(certificate: Mapping[str, Any]) -> int:
    """Returns the moment from which the certificate is not valid any more, µs since 1970.

    TLS looks at it in the handshake only, and a connection may stand for months.
    """
    return round(ssl.cert_time_to_seconds(certificate["notAfter"]) * SECONDS)
