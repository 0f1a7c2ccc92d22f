"""Certificates that are renewed while they are in use, on a clock that the test sets."""

import contextlib
import logging
import ssl
from datetime import timedelta
from pathlib import Path

import pytest

from cachesvc.config.service import Server, Service
from cachesvc.config.tls import ClientTls, ListenerTls, Tls
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.tls import Certificates, RenewedContext
from tests.doubles.certificates import Authority


def certificate_of(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> bytes:
    """The certificate that a caller is shown. Raises `ssl.SSLError`.

    Both sides shake hands in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (here, there):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = here.getpeercert(binary_form=True)
    assert found is not None
    return found


def listening(authority: Authority) -> tuple[Certificates, RenewedContext]:
    own = authority.issue()
    block = ListenerTls(cert=own.cert, key=own.key)
    certificates = Certificates(Service(server=Server(tls=block)))
    context = certificates.listener(block, "server.tls")
    assert context is not None
    return certificates, context


def test_a_connection_is_made_with_the_files_that_were_read_last(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates, context = listening(authority)
    client = authority.client_context()
    first = certificate_of(context, client)
    certificates.look()
    assert certificate_of(context, client) == first
    authority.issue()
    certificates.look()
    assert certificate_of(context, client) != first
    assert certificates.renewals == 1


def test_files_that_do_not_fit_change_nothing_until_they_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate and its key are not written in one step."""
    authority = Authority(tmp_path)
    certificates, context = listening(authority)
    client = authority.client_context()
    first = certificate_of(context, client)
    renewed = authority.issue(file="renewed")
    (tmp_path / "server.pem").write_bytes(Path(renewed.cert).read_bytes())
    with caplog.at_level(logging.WARNING):
        certificates.look()
        certificates.look()
    assert certificate_of(context, client) == first
    (trouble,) = certificates.troubles()
    assert "its private key is that of another certificate; the certificates of before stay" in trouble
    assert len(caplog.records) == 1
    (tmp_path / "server.key").write_bytes(Path(renewed.key).read_bytes())
    certificates.look()
    assert certificate_of(context, client) != first
    assert list(certificates.troubles()) == []


def test_a_file_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificates, context = listening(authority)
    (tmp_path / "server.pem").unlink()
    certificates.look()
    assert certificate_of(context, authority.client_context())
    (trouble,) = certificates.troubles()
    assert "No such file" in trouble


def test_clients_check_servers_by_the_name_that_is_given(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("cells.internal").server_context()
    plain = Certificates(Service(tls=ClientTls(ca=authority.file))).clients("redis")
    named = Certificates(Service(tls=ClientTls(ca=authority.file, server_name="cells.internal")))
    client = named.clients("redis")
    assert plain is not None
    assert client is not None
    assert certificate_of(server, client, "10.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        certificate_of(server, plain, "10.0.0.1")


def test_servers_without_a_block_have_the_clients_own_default(tmp_path: Path) -> None:
    assert Certificates(Service()).clients("redis") is None
    only = Certificates(Service(tls=ClientTls(redis=Tls(ca=Authority(tmp_path).file))))
    assert only.clients("redis") is not None
    assert only.clients("origins") is None
    assert not Certificates(Service()).is_used


def test_servers_that_share_a_block_share_its_context(tmp_path: Path) -> None:
    certificates = Certificates(Service(tls=ClientTls(ca=Authority(tmp_path).file)))
    assert certificates.clients("redis") is certificates.clients("memcached")


def test_an_unusable_file_is_a_mistake_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.tls\.ca.*No such file"):
        Certificates(Service(tls=ClientTls(ca=str(tmp_path / "none.pem")))).clients("redis")


def test_the_end_of_a_certificate_is_told_14_days_before_and_once_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(left=timedelta(days=20))
    block = ListenerTls(cert=own.cert, key=own.key)
    passed_seconds = 0.0
    began = Path(own.cert).stat().st_mtime
    certificates = Certificates(Service(server=Server(tls=block)), now=lambda: began + passed_seconds)
    certificates.listener(block, "server.tls")

    def told() -> str:
        certificates.look()
        return "; ".join(certificates.troubles())

    with caplog.at_level(logging.WARNING):
        assert told() == ""
        assert round(certificates.seconds_left()[own.cert,] / 86_400) == 20
        passed_seconds = 7 * 86_400.0
        assert told().endswith("ends in 13 days: put a renewed one there, no restart is needed")
        passed_seconds = 21 * 86_400.0
        assert "has expired" in told()
        assert certificates.seconds_left()[own.cert,] < 0
    assert len(caplog.records) == 1
    authority.issue()
    assert told() == ""
