"""The name in a client certificate, from a real TLS handshake."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import pytest
import trustme

from cachesvc.web.access.certificates import certificate_name


async def peer_certificate(
    authority: trustme.CA, client: trustme.LeafCert | None
) -> Mapping[str, Any] | None:
    """The certificate of a client as the server's transport tells it."""
    serving, asking = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(serving)
    authority.configure_trust(serving)
    authority.configure_trust(asking)
    serving.verify_mode = ssl.CERT_OPTIONAL
    if client is not None:
        client.configure_cert(asking)
    told: asyncio.Future[Mapping[str, Any] | None] = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.set_result(writer.get_extra_info("peercert"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=asking, server_hostname="localhost")
        found = await told
        writer.close()
    return found


async def test_a_certificate_names_its_holder_and_none_names_nobody() -> None:
    authority = trustme.CA()
    dns = await peer_certificate(authority, authority.issue_cert("checkout.internal", "other.internal"))
    assert certificate_name(dns) == "checkout.internal"
    plain = await peer_certificate(authority, authority.issue_cert("127.0.0.1", common_name="root"))
    assert certificate_name(plain) == "", "the subject is not looked at"
    assert certificate_name(await peer_certificate(authority, None)) == ""


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ((("DNS", "a.b"), ("URI", "spiffe://prod/checkout")), "spiffe://prod/checkout"),
        ((("URI", "https://prod/checkout"), ("DNS", "a.b")), "a.b"),
        ((("URI", "spiffe://prod/a"), ("URI", "spiffe://prod/b"), ("DNS", "a.b")), ""),
        ((("DNS", "spiffe://prod/checkout"),), ""),
        ((("email", "a@b"),), ""),
        ((), ""),
    ],
)
def test_a_spiffe_id_comes_before_dns_names(names: tuple[tuple[str, str], ...], name: str) -> None:
    assert certificate_name({"subjectAltName": names}) == name
