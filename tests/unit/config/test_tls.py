"""The `tls` blocks: which mistakes are told, with their places, and when certificates end."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cachesvc.config.service import load_service
from cachesvc.config.tls import client_block, ends_of
from cachesvc.model.errors import ConfigError
from tests.doubles.certificates import Authority


def mistakes(**environ: str) -> dict[str, str]:
    """The mistakes of a document that these variables make: path → reason."""
    try:
        load_service(None, environ)
    except ConfigError as error:
        return {one.path: one.why for one in error.each()}
    return {}


def test_nothing_given_is_plain_http_and_no_mistake() -> None:
    service = load_service(None, {})
    assert service.server.tls.cert == ""
    assert mistakes() == {}


def test_good_files_are_no_mistake(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    own = ca.issue()
    assert (
        mistakes(
            CACHESVC_SERVER_TLS_CERT=own.cert,
            CACHESVC_SERVER_TLS_KEY=own.key,
            CACHESVC_SERVER_TLS_CA=ca.file,
            CACHESVC_SERVER_TLS_CLIENT_CERTIFICATES="required",
            CACHESVC_TLS_CA=ca.file,
            CACHESVC_TLS_CERT=own.cert,
            CACHESVC_TLS_KEY=own.key,
            CACHESVC_TLS_REDIS_CA="system",
        )
        == {}
    )


@pytest.mark.parametrize(
    ("given", "path", "why"),
    [
        ({"SERVER_TLS_KEY": "{key}"}, "$.server.tls.cert", "is missing"),
        (
            {
                "SERVER_TLS_CERT": "{cert}",
                "SERVER_TLS_KEY": "{key}",
                "SERVER_TLS_CLIENT_CERTIFICATES": "optional",
            },
            "$.server.tls.ca",
            "needs their authorities",
        ),
        (
            {"SERVER_TLS_CERT": "{cert}", "SERVER_TLS_KEY": "{key}", "SERVER_TLS_CA": "{ca}"},
            "$.server.tls.client_certificates",
            "`ca` has no use",
        ),
        ({"SERVER_TLS_CERT": "{cert}"}, "$.server.tls.key", "holds no private key"),
        (
            {"SERVER_TLS_CERT": "{cert}", "SERVER_TLS_KEY": "{other}"},
            "$.server.tls.cert",
            "its private key is that of another certificate",
        ),
        ({"SERVER_TLS_CERT": "/no/such"}, "$.server.tls.cert", "No such file or directory: /no/such"),
        (
            {"SERVER_TLS_CERT": "{key}", "SERVER_TLS_KEY": "{key}"},
            "$.server.tls.cert",
            "holds no certificate",
        ),
        (
            {"SERVER_TLS_CERT": "{cert}", "SERVER_TLS_KEY": "{key}", "SERVER_TLS_HANDSHAKE_TIMEOUT": "0s"},
            "$.server.tls.handshake_timeout",
            "longer than 0",
        ),
        ({"TLS_CA": "/no/such"}, "$.tls.ca", "No such file or directory: /no/such"),
        ({"TLS_CA": "{key}"}, "$.tls.ca", "holds no certificate"),
        ({"TLS_MEMCACHED_KEY": "{key}"}, "$.tls.memcached.cert", "is missing"),
        ({"TLS_SERVER_NAME": "a:b"}, "$.tls.server_name", "is no host name"),
        ({"TLS_ORIGINS_CERT": "{cert}", "TLS_ORIGINS_KEY": "{locked}"}, "$.tls.origins.key", "a passphrase"),
    ],
)
def test_a_mistake_names_its_field_and_what_is_wrong(
    tmp_path: Path, given: dict[str, str], path: str, why: str
) -> None:
    ca = Authority(tmp_path)
    own, other = ca.issue(), ca.issue(file="other")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", own.key, "-out", locked, "-passout", "pass:secret"], check=True
    )
    files: Any = {"cert": own.cert, "key": own.key, "other": other.key, "ca": ca.file, "locked": locked}
    found = mistakes(**{f"CACHESVC_{name}": value.format(**files) for name, value in given.items()})
    assert list(found) == [path]
    assert why in found[path]


def test_a_block_of_one_kind_of_server_stands_in_place_of_the_outer_one(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    service = load_service(None, {"CACHESVC_TLS_CA": ca.file, "CACHESVC_TLS_ORIGINS_CA": "system"})
    assert client_block(service.tls, "redis") == ("tls", service.tls)
    path, block = client_block(service.tls, "origins")
    assert (path, block.ca) == ("tls.origins", "system")


@pytest.mark.parametrize("year", [2031, 2060])
def test_the_end_of_a_certificate_is_read_from_its_file(tmp_path: Path, year: int) -> None:
    """From 2050 on, certificates write the year with four digits."""
    ca, end = Authority(tmp_path), datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    own = ca.issue(left=end - datetime.now(UTC))
    found = ends_of(own.cert, is_ca=False)
    assert found is not None
    assert abs(found - end) <= timedelta(seconds=2)


def test_a_chain_ends_first_and_a_file_of_authorities_last(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    early, late = ca.issue(file="e", left=timedelta(days=1)), ca.issue(file="l", left=timedelta(days=9))
    both = tmp_path / "both.pem"
    both.write_text(Path(late.cert).read_text() + "a remark\n" + Path(early.cert).read_text())
    assert ends_of(str(both), is_ca=False) == ends_of(early.cert, is_ca=False)
    assert ends_of(str(both), is_ca=True) == ends_of(late.cert, is_ca=False)


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_cannot_be_read_has_no_end(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.pem"
    file.write_text(text)
    assert ends_of(str(file), is_ca=False) is None
    assert ends_of(str(tmp_path / "none.pem"), is_ca=False) is None


@pytest.mark.parametrize(
    ("given", "path", "why"),
    [
        ({"REDIS_USER": "u"}, "$.redis.password", "is missing"),
        ({"REDIS_PASSWORD": "p", "REDIS_PASSWORD_FILE": "{file}"}, "$.redis.password", "keep one of them"),
        ({"REDIS_PASSWORD_FILE": "/no/such"}, "$.redis.password_file", "No such file"),
        ({"REDIS_QUEUES_PASSWORD_FILE": "/no/such"}, "$.redis.queues.password_file", "No such file"),
        ({"REDIS_CELLS_USER": "me"}, "$.redis.cells.password", "is missing"),
        ({"REDIS_PASSWORD_FILE": "{empty}"}, "$.redis.password_file", "begins with an empty line"),
        ({"L2_AUTH": "nocolon"}, "$.l2.auth", "is not user:password"),
        ({"L2_AUTH": "u:two words"}, "$.l2.auth", "a space"),
        ({"L2_AUTH": "u:p", "L2_AUTH_FILE": "{file}"}, "$.l2.auth", "keep one of them"),
        ({"L2_AUTH_FILE": "{empty}"}, "$.l2.auth_file", "begins with an empty line"),
    ],
)
def test_a_login_that_cannot_be_used_is_told_without_its_password(
    tmp_path: Path, given: dict[str, str], path: str, why: str
) -> None:
    file, empty = tmp_path / "file", tmp_path / "empty"
    file.write_text("user:in-the-file\n")
    empty.write_text("\nuser:in-the-file\n")
    found = mistakes(
        **{f"CACHESVC_{name}": value.format(file=file, empty=empty) for name, value in given.items()}
    )
    assert list(found) == [path]
    assert why in found[path]
    assert "in-the-file" not in str(found)
    assert "two words" not in str(found)
