"""Commands over TLS, as a producer of Redis's ACL, and what they say of files and servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cachesvc.cli import main
from tests.doubles.certificates import Authority
from tests.doubles.guarded_servers import PASSWORD, GuardedRedis, guarded_redis

PRODUCER = {"CACHESVC_REDIS_USER": "cachesvc-producer", "CACHESVC_REDIS_PASSWORD": PASSWORD}


@pytest.fixture(scope="module")
def queue() -> Iterator[GuardedRedis]:
    with guarded_redis() as running:
        yield running


def publish(queue: GuardedRedis, *more: str, **environ: str) -> int:
    return main(["publish", "pages", "--key", "a", "--queue", queue.url, *more], {**PRODUCER, **environ})


def test_a_producer_of_the_acl_announces_over_tls(queue: GuardedRedis) -> None:
    assert publish(queue, "--tls-ca", queue.authority.file) == 0
    assert publish(queue, CACHESVC_TLS_CA=queue.authority.file) == 0
    with Redis.from_url(queue.redis_url) as admin:
        assert admin.xlen("changes") == 2


def test_a_queue_that_is_not_believed_is_told_with_what_to_do(
    queue: GuardedRedis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Authority(tmp_path, "other")
    assert publish(queue, "--tls-ca", other.file) == 1
    assert "an authority that tls.ca does not have" in capsys.readouterr().err


def test_a_user_that_is_refused_is_told_without_the_password(
    queue: GuardedRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"CACHESVC_REDIS_PASSWORD": "another-word"}
    assert publish(queue, "--tls-ca", queue.authority.file, **wrong) == 1
    said = capsys.readouterr().err
    assert "look at the user and password" in said
    assert "another-word" not in said


@pytest.mark.parametrize(
    ("options", "environ", "place"),
    [
        (["--tls-ca", "/no/such"], {}, "--tls-ca"),
        ([], {"CACHESVC_TLS_CA": "/no/such"}, "CACHESVC_TLS_CA"),
        ([], {"CACHESVC_TLS_REDIS_CERT": "/no/such"}, "CACHESVC_TLS_REDIS_CERT"),
        (["--tls-server-name", "a b"], {}, "--tls-server-name"),
    ],
)
@pytest.mark.parametrize("command", ["publish", "explain", "top"])
def test_a_file_that_cannot_be_used_is_told_by_the_place_where_it_was_given(
    command: str,
    options: list[str],
    environ: dict[str, str],
    place: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {
        "publish": ["pages", "--key", "a", "--queue", "rediss://127.0.0.1:1/0"],
        "explain": ["pages", "a"],
        "top": ["--once"],
    }
    assert main([command, *words[command], *options], environ) == 2
    assert capsys.readouterr().err.startswith(f"cachesvc: {place}: ")
