"""URLs of servers that sentinels watch: what they say, and who may see what of them."""

import pytest

from cachesvc.config.addresses import Watched, place_of, redis_fault, redis_query_fault, watched_in
from cachesvc.telemetry.traces.exchange_span import Server
from cachesvc.web.replies.redaction import without_credentials


@pytest.mark.parametrize(
    ("url", "found"),
    [
        (
            "redis+sentinel://h1,h2:5000,[::1]:5001,[::2]/my.master-1_x/3",
            Watched(
                "my.master-1_x",
                (("h1", 26379), ("h2", 5000), ("::1", 5001), ("::2", 26379)),
                "redis://my.master-1_x/3",
                "redis://my.master-1_x",
            ),
        ),
        (
            "rediss+sentinel://me:p%40ss@h1/m?db=2&sentinel_username=s&sentinel_password=q%26&ssl_ca_certs=/x",
            Watched(
                "m",
                (("h1", 26379),),
                "rediss://me:p%40ss@m?db=2&ssl_ca_certs=%2Fx",
                "rediss://m?username=s&password=q%26&ssl_ca_certs=%2Fx",
            ),
        ),
        ("redis://h/0", None),
        ("unix:///x?db=0", None),
    ],
)
def test_a_url_with_sentinels_names_them_the_master_and_its_database(url: str, found: Watched | None) -> None:
    assert not redis_fault(url)
    assert not redis_query_fault(url)
    assert watched_in(url) == found


@pytest.mark.parametrize(
    ("rest", "fault"),
    [
        ("h1,h2", "after the sentinels comes the name of the master, such as /mymaster"),
        ("h1,h2/", "after the sentinels comes the name of the master, such as /mymaster"),
        ("h1,h2/a b/0", "the name of its master may hold letters, digits and ._- only"),
        ("h1:0,h2/m/0", "its port is not 1 to 65535"),
        ("h1,,h2/m/0", "it names no host"),
        ("/m/0", "it names no host"),
        ("h1,h2/m/x", "after the host comes the number of a database, such as /0"),
        ("h1/m?sentinel=x", "'sentinel' is no setting that it may hold"),
        ("h1/m?ssl_ca_certs=x", "'ssl_ca_certs' is no setting that it may hold"),
    ],
)
def test_what_is_wrong_with_a_url_with_sentinels_is_said(rest: str, fault: str) -> None:
    url = f"redis+sentinel://{rest}"
    assert (redis_fault(url) or redis_query_fault(url)).startswith(fault)


def test_a_master_that_is_named_twice_has_one_place() -> None:
    place = place_of("redis+sentinel://a,b:5000/m/0")
    assert place == place_of("rediss+sentinel://u:p@b:5000,a:26379/m")
    others = ("redis+sentinel://a,b:5000/m/1", "redis+sentinel://a,b:5000/n/0", "redis+sentinel://a,b/m/0")
    assert place not in {place_of(url) for url in others}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "redis+sentinel://me:hunter2@h1,h2:5000/m/0?sentinel_password=hunter2&db=1",
            "redis+sentinel://***@h1,h2:5000/m/0?sentinel_password=***&db=1",
        ),
        ("rediss+sentinel://h1,[::1]:5000/m", "rediss+sentinel://h1,[::1]:5000/m"),
    ],
)
def test_a_url_with_sentinels_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_a_span_names_the_master() -> None:
    server = Server.redis("c1", "redis+sentinel://me:hunter2@h1,h2:5000/m/0")
    assert (server.address, server.port) == ("m", None)
