"""The keys of the seal: their form, where they are needed, and that no message has one."""

from pathlib import Path

import pytest

from cachesvc.config.document import read_struct
from cachesvc.config.service import L2, Service, check_together, load_service
from cachesvc.config.topology import Cell, MemcachedServer, Namespace, Origin, Region, Topology
from cachesvc.model.errors import ConfigError

KEY = "00112233445566778899aabbccddeeff"
OTHER = "ffeeddccbbaa99887766554433221100" * 2


def loaded(text: str) -> Service:
    return load_service(None, {"CACHESVC_L2_SEAL_KEYS": text})


@pytest.mark.parametrize("text", ["", KEY, f"{KEY} {OTHER}", f"{OTHER}\n{KEY}\n", KEY.upper(), KEY * 4])
def test_one_or_two_keys_of_128_to_512_bits_are_taken(text: str) -> None:
    assert loaded(text).l2.seal_keys == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (KEY[:-2], "key 1 is not 32 to 128 hexadecimal digits"),
        (KEY + "0", "key 1 is not 32 to 128 hexadecimal digits"),
        (KEY * 4 + "00", "key 1 is not 32 to 128 hexadecimal digits"),
        (f"{KEY} {OTHER} {KEY[::-1]}", "holds more than 2 keys"),
        (f"{KEY} {KEY[:-1]}g", "key 2 is not 32 to 128 hexadecimal digits"),
        (f"{KEY},{OTHER}", "key 1 is not 32 to 128 hexadecimal digits"),
        ("٣" * 32, "key 1 is not 32 to 128 hexadecimal digits"),
        ("0" * 64, "key 1 is easy to guess"),
        ("ab" * 32, "key 1 is easy to guess"),
        (f"{KEY} {KEY.upper()}", "holds the same key twice"),
    ],
)
def test_other_keys_are_refused_and_not_repeated(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    said = str(caught.value)
    assert said.startswith(f"$.l2.seal_keys: {why}")
    assert not any(word in said for word in text.split())


def test_a_key_that_yaml_reads_as_a_number_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(f"l2: {{seal_keys: {'1234567890' * 4}}}")
    with pytest.raises(ConfigError) as caught:
        load_service(tmp_path / "service.yaml", {})
    assert str(caught.value) == "$.l2.seal_keys: Expected `str`, got `int`: put it in quotes"


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Service, {"telemetry": {"debug_token": 1234567890123456}}),
        (Origin, {"url": "http://o/{key}", "headers": {"X-Api-Key": 1234567890123456}}),
        (Origin, {"url": "http://o/{key}", "headers": {"X-Api-Key": [1234567890123456]}}),
    ],
)
def test_no_other_secret_is_repeated(kind: type[Service] | type[Origin], data: object) -> None:
    with pytest.raises(ConfigError) as caught:
        read_struct(data, kind)
    assert "1234" not in str(caught.value)
    assert str(caught.value).endswith(": put it in quotes")


def test_a_file_holds_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n{OTHER}\n")
    service = load_service(None, {"CACHESVC_L2_SEAL_KEYS_FILE": str(path)})
    assert service.l2.seal_keys.split() == [KEY, OTHER]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read"),
        (b"", "{path} holds no key"),
        (b"\xff\xfe" + bytes(30), "{path} is no text"),
        (b"00112233", "key 1 is not 32 to 128 hexadecimal digits"),
    ],
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_service(None, {"CACHESVC_L2_SEAL_KEYS_FILE": str(path)})
    assert str(caught.value).startswith(f"$.l2.seal_keys_file: {why.format(path=path)}")
    assert "00112233" not in str(caught.value)


def test_keys_and_their_file_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    with pytest.raises(ConfigError, match=r"^\$\.l2\.seal_keys: is given beside l2\.seal_keys_file"):
        load_service(
            None, {"CACHESVC_L2_SEAL_KEYS": OTHER, "CACHESVC_L2_SEAL_KEYS_FILE": str(tmp_path / "keys")}
        )


def check(l2: L2, *addresses: str) -> None:
    """Checks an instance whose region has this pool, beside a region with a far pool."""
    pool = {f"mc-{number}": MemcachedServer(address) for number, address in enumerate(addresses)}
    topology = Topology(
        version=1,
        regions={
            "eu": Region("redis://127.0.0.1:1/0", pool),
            "us": Region("redis://127.0.0.1:2/0", {"mc-0": MemcachedServer("10.9.9.9:11211")}),
        },
        cells={"c1": Cell("eu", "redis://127.0.0.1:3/0")},
        namespaces={"pages": Namespace("web")},
    )
    check_together(Service(region="eu", l2=l2), topology)


HERE = [
    "127.0.0.1:11211",
    "127.8.8.8:11211",
    "localhost:11211",
    "LOCALHOST:11212",
    "[::1]:11211",
    "unix:/run/mc",
    "stand-in",
]
ELSEWHERE = [
    "10.0.0.1:11211",
    "mc.internal:11211",
    "[2001:db8::1]:11211",
    "0.0.0.0:11211",
    "localhost.example:11211",
]


def test_a_pool_of_this_machine_needs_no_key() -> None:
    check(L2(), *HERE)
    check(L2())


@pytest.mark.parametrize("address", ELSEWHERE)
def test_a_pool_elsewhere_needs_a_key_or_a_word_that_it_has_none(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(L2(), HERE[0], address)
    assert str(caught.value) == (
        f"$.l2.seal_keys: is empty, but memcached mc-1 ({address}) is not on this machine, and whoever "
        "reaches it could write values that are answered: give all instances of the region a key "
        "(CACHESVC_L2_SEAL_KEYS, or l2.seal_keys_file; `openssl rand -hex 32` makes one), or say "
        "`l2: {seal: false}` if only they reach it"
    )
    check(L2(seal_keys=KEY), address)
    check(L2(seal=False), address)


def test_off_is_a_word_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text("l2: {seal: off}")
    assert load_service(tmp_path / "service.yaml", {}).l2.seal is False
