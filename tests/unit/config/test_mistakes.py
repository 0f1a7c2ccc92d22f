"""Whatever stands in a document or in a variable is read, or refused in a sentence with its place.

All mistakes of a document are told at once, and what follows from another mistake is not told.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymemcache.client.base import normalize_server_spec

from cachesvc.config import document, environment
from cachesvc.config.addresses import (
    base_url_fault,
    host_fault,
    memcached_fault,
    origin_fault,
    place_of,
    redis_fault,
    redis_query_fault,
)
from cachesvc.config.document import parse, parse_text, read_struct
from cachesvc.config.service import Service, check_service, load_service, load_topology
from cachesvc.config.topology import (
    Cell,
    Former,
    MemcachedServer,
    Namespace,
    Origin,
    Region,
    Source,
    Topology,
)
from cachesvc.config.topology_rules import check_topology
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.origin.address import KeyAddress
from cachesvc.tiers.redis_connections import RedisConnections

WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    70000,
    1e9,
    10**30,
    -(10**30),
    float("nan"),
    float("inf"),
    "",
    " ",
    "5m",
    "-5m",
    "1MiB",
    "9" * 400 + "d",
    "a b",
    "a\tb\x1b[2J\u202e",
    "x" * 100_000,
    "http://[",
    "redis://h:port/0",
    "{key}",
    "{{",
    "\ud800",
    [],
    ["a", 1],
    [[[[[]]]]],
    {},
    {"a": 1},
    {1: 2},
    b"bytes",
]

TOPOLOGY: dict[str, Any] = {
    "version": 1,
    "regions": {
        "eu": {
            "queue": "redis://127.0.0.1:1/0",
            "pool": {"m1": {"address": "127.0.0.1:2"}},
            "instances": {"eu-a": "http://127.0.0.1:3"},
        }
    },
    "cells": {
        "c1": {"region": "eu", "url": "redis://127.0.0.1:4/0"},
        "c2": {"region": "eu", "url": "redis://h"},
    },
    "namespaces": {
        "docs": {
            "owner": "docs",
            "origin": {"url": "http://h/{key}"},
            "sources": [{"source": "public.docs", "key": "{id}"}],
        }
    },
    "pins": {"ws-7": "c1"},
    "former": {"cells": {"c1": 1}},
}
PLACES: list[tuple[type[msgspec.Struct], tuple[Any, ...]]] = [
    (Topology, ()),
    (Region, ("regions", "eu")),
    (MemcachedServer, ("regions", "eu", "pool", "m1")),
    (Cell, ("cells", "c1")),
    (Namespace, ("namespaces", "docs")),
    (Origin, ("namespaces", "docs", "origin")),
    (Source, ("namespaces", "docs", "sources", 0)),
    (Former, ("former",)),
]


def changed(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The sound document with another value at the place."""
    changed = copy.deepcopy(TOPOLOGY)
    here: Any = changed
    for step in place[:-1]:
        here = here[step]
    here[place[-1]] = value
    return changed


def topology_fields() -> Iterator[tuple[Any, ...]]:
    for kind, place in PLACES:
        for field in msgspec.structs.fields(kind):
            yield (*place, field.encode_name)
    yield from (("regions", "eu", "instances", "eu-a"), ("pins", "ws-7"), ("former", "cells", "c1"))


def service_fields(kind: type[msgspec.Struct], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for field in msgspec.structs.fields(kind):
        yield (*place, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from service_fields(field.type, (*place, field.encode_name))


def refused(error: ConfigError, path: str = "$") -> None:
    """Holds if each mistake is a line of a length that people read, with its place."""
    assert len({one.path for one in error.each()}) == len(error.each()), "one mistake for each place"
    for one in error.each():
        assert one.path.startswith(path)
        assert one.why
        assert "\n" not in one.why
        assert len(one.why) < 2000
        assert not one.others


def test_a_document_that_every_case_changes_is_sound() -> None:
    check_topology(read_struct(TOPOLOGY, Topology))


@pytest.mark.parametrize("place", list(topology_fields()), ids=lambda place: ".".join(map(str, place)))
def test_whatever_stands_in_a_field_of_the_topology_it_is_read_or_refused(place: tuple[Any, ...]) -> None:
    for value in WRONG:
        try:
            check_topology(read_struct(changed(place, value), Topology))
        except ConfigError as error:
            refused(error)


@pytest.mark.parametrize("place", list(service_fields(Service)), ids=".".join)
def test_whatever_stands_in_a_field_of_the_service_document_it_is_read_or_refused(
    place: tuple[str, ...],
) -> None:
    for value in WRONG:
        text = value
        for name in reversed(place):
            text = {name: text}
        try:
            check_service(read_struct(text, Service))
        except ConfigError as error:
            refused(error)


@pytest.mark.parametrize("name", [name for name, _ in environment.settings(Service)])
def test_whatever_a_variable_has_it_is_read_or_refused(name: str) -> None:
    for value in WRONG:
        if isinstance(value, str):
            try:
                load_service(None, {name: value})
            except ConfigError as error:
                # A rule between two settings is told with the path of the field.
                refused(error, path=name if error.path.startswith("CACHESVC_") else "$")


def test_a_variable_of_a_list_is_written_as_in_the_document() -> None:
    service = load_service(None, {"CACHESVC_SERVER_HOSTS": "[cache.internal, cache]"})
    assert service.server.hosts == ("cache.internal", "cache")
    with pytest.raises(ConfigError, match=r"^CACHESVC_SERVER_HOSTS: 'a,b' is no list: write it as in the"):
        load_service(None, {"CACHESVC_SERVER_HOSTS": "a,b"})


def test_all_variables_that_are_wrong_are_told_with_what_is_wrong_in_the_document(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text("l1: {budget: 1}\nserver: {prt: 1}")
    with pytest.raises(ConfigError) as caught:
        load_service(path, {"CACHESVC_SERVER_PORT": "x", "CACHESVC_L2_TIMEOT": "1s"})
    assert [one.path for one in caught.value.each()] == [
        "CACHESVC_L2_TIMEOT",
        "CACHESVC_SERVER_PORT",
        "$.server.prt",
        "$.l1.budget",
    ]


MANY = """
version: 0
regions:
  eu: {queue: "redis://h:6379/tenants", pool: {m1: {address: "h:"}}, instances: {a: "http://u:hunter2@h:80"}}
  us: {queue: 5}
cells:
  c1: {region: eu, url: "redis://h/0?foo=bar", weight: .nan}
  c2: 7
  c3: {region: e, url: "redis://:hunter2@ss/x@h/0"}
namespaces:
  pages: {owner: "", ttl: 5 minutes, origin: {url: "http://h/{key}#x", headers: {Content-Length: "3"}}}
  docs: {ownr: x}
  docs: {owner: x}
pins: {a: c2, b: c9}
"""


def test_all_mistakes_of_a_document_are_told_at_once_and_no_other(tmp_path: Path) -> None:
    """The pin to `c2` is no mistake of its own: the cell is there, and could not be read."""
    path = tmp_path / "topology.yaml"
    path.write_text(MANY)
    with pytest.raises(ConfigError) as caught:
        load_topology(path)
    assert [one.path for one in caught.value.each()] == [
        "$.namespaces.docs",
        "$.regions.us.queue",
        "$.cells.c2",
        "$.namespaces.pages.ttl",
        "$.version",
        "$.regions.eu.queue",
        "$.regions.eu.pool.m1.address",
        "$.regions.eu.instances.a",
        "$.cells.c1.url",
        "$.cells.c1.weight",
        "$.cells.c3.region",
        "$.cells.c3.url",
        "$.pins.b",
        "$.namespaces.pages.owner",
        "$.namespaces.pages.origin.url",
        "$.namespaces.pages.origin.headers.Content-Length",
    ]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("section", ["regions", "cells", "namespaces"])
def test_a_section_that_cannot_be_read_is_the_only_mistake(section: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_topology(read_struct(changed((section,), ["what"]), Topology))
    assert str(caught.value) == f"$.{section}: must be a mapping of names to values, not ['what']"


# texts -----------------------------------------------------------------------------------------

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\tb\n\tc: 1", "f:1:3: is not YAML: found character '\\t' that cannot start any token"),
        ("a: b: c", "f:1:5: is not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "f:2:1: is not YAML: but found another document"),
        ("a: *b", "f:1:4: is not YAML: found undefined alias 'b'"),
        ("a: &a\n  b: *a", "f:1: is not YAML: an anchor's value has its own alias in it"),
        (BOMB, "f: stands for more than 1000000 values"),
        (MERGES, "f: stands for more than 1000000 values"),
        ("a: !!timestamp soon", "f: is not YAML: a value does not fit its !!tag"),
        ("a: !!bool maybe", "f: is not YAML: a value does not fit its !!tag"),
        ("a: !!int ''", "f: is not YAML: a value does not fit its !!tag"),
        ("a: !!float x", "f: is not YAML: could not convert string to float"),
        ("a: 2020-13-45", "f: is not YAML: month must be in 1..12"),
        ("a: " + "9" * 5000, "f: is not YAML: Exceeds the limit"),
        ("a: !!python/object/apply:os.system [ls]", "f:1:4: is not YAML: could not determine a constructor"),
        ("? [a]\n: 1", "f:1:3: is not YAML: found unhashable key"),
        ("a: \x00", "f: is not YAML: unacceptable character #x0000"),
        ("[" * 5000, "f: is not YAML: it is nested too deeply"),
        ("{a: 1, a: 2, b: {c: 1, c: 1}}", "$.a: stands here twice (lines 1 and 1): keep one\n$.b.c: stands"),
    ],
)
def test_a_text_that_is_no_document_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_text(text, name="f")
    assert str(caught.value).startswith(message)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`,?#\n\t \\.<0~\u202e\x00", max_size=40) | st.text(max_size=20))
@settings(max_examples=300, deadline=None)
@example("!!set {a}")
@example("<<: 5")
@example("a: !!binary x")
@example("=: 1")
def test_every_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_text(text, name="f")
        check_service(read_struct(found, Service))
    except ConfigError as error:
        refused(error, path="")


def test_files_that_are_none_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latin, unreadable, empty = (tmp_path / name for name in ("latin", "unreadable", "empty"))
    latin.write_bytes(b"region: eu\nowner: caf\xe9")
    empty.write_bytes(b"")
    unreadable.write_text("region: eu")
    monkeypatch.setattr(document, "LARGEST_FILE_BYTES", 1 << 10)
    cases = {
        tmp_path / "nowhere": ": cannot be read: No such file or directory",
        tmp_path: ": cannot be read: Is a directory",
        Path("/dev/zero"): ": is longer than 0 MiB: is it the right file?",
        latin: ":2: is not UTF-8 (byte 0xe9): save the file as UTF-8",
    }
    for path, why in cases.items():
        with pytest.raises(ConfigError) as caught:
            parse(path)
        assert str(caught.value) == f"{path}{why}"
    assert parse(empty) is None
    if os.getuid():  # root reads everything
        unreadable.chmod(0)
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            parse(unreadable)


def test_an_empty_topology_lacks_its_sections(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    with pytest.raises(ConfigError) as caught:
        load_topology(tmp_path / "empty.yaml")
    assert [str(one) for one in caught.value.each()] == [
        f"$.{name}: is missing: it has no default" for name in ("version", "regions", "cells", "namespaces")
    ]


# addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://h", ""),
        ("redis://h:6379/0", ""),
        ("rediss://user:p%40ss@h.example:6379/12", ""),
        ("rediss://h/0?ssl_cert_reqs=none", ""),
        ("redis://[::1]:6379/0", ""),
        ("redis://10.0.0.1?db=3", ""),
        ("unix:///run/c.sock?db=1", ""),
        ("unix:///run/c.sock?db=1&password=secret", ""),
        ("h:6379", "its scheme is another"),
        ("redis:h", "its scheme is another"),
        ("redis://", "it names no host"),
        ("redis://:6379", "it names no host"),
        ("redis://h:0", "its port is not 1 to 65535"),
        ("redis://h:70000", "its port is not 1 to 65535"),
        ("redis://h:-1", "its port is not 1 to 65535"),
        ("redis://h:port", "its port is not 1 to 65535"),
        ("redis://::1:6379", "an IPv6 address stands in brackets, such as [::1]"),
        ("redis://[::1", "an IPv6 address stands in brackets, such as [::1]"),
        ("redis://[::x]:1", "an IPv6 address stands in brackets, such as [::1]"),
        ("redis://10.0.0.300", "its host is no IP address"),
        ("redis://h h", "it holds a space or a control character"),
        ("redis://h\n", "it holds a space or a control character"),
        ("redis://-h", "its host is neither a name nor an address"),
        ("redis://h/tenants", "after the host comes the number of a database, such as /0"),
        ("redis://h/0#x", "after the host comes the number of a database, such as /0"),
        ("redis://h?db=x", "its db is no number"),
        ("redis://h?foo=1", "'foo' is no setting that it may hold (db, username, password; rediss: ssl_…)"),
        ("redis://h?ssl_cert_reqs=none", "'ssl_cert_reqs' is no setting that it may hold"),
        ("rediss://h?ssl_cert_reqs=maybe", "its ssl_cert_reqs is none of none, optional, required"),
        ("rediss://h?ssl_what=1", "'ssl_what' is no setting that it may hold"),
        ("redis://h?socket_timeout=x", "'socket_timeout' is no setting that it may hold"),
        ("unix://run/c.sock", "after unix:// comes the whole path of the socket"),
        ("unix:///", "after unix:// comes the whole path of the socket"),
    ],
)
def test_addresses_of_redis(url: str, fault: str) -> None:
    found = redis_fault(url) or redis_query_fault(url)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


@pytest.mark.parametrize(
    ("address", "is_sound"),
    [
        ("127.0.0.1:11211", True),
        ("[::1]:11211", True),
        ("cache_1.internal:1", True),
        ("unix:/run/m.sock", True),
        ("h", False),
        ("h:", False),
        ("h:0", False),
        ("h:65536", False),
        (":11211", False),
        ("::1:11211", False),
        ("[::1]", False),
        ("u@h:1", False),
        ("h:1/x", False),
        ("tcp://h:1", False),
        ("h h:1", False),
        ("unix:m.sock", False),
        ("unix:/", False),
    ],
)
def test_addresses_of_memcached(address: str, is_sound: bool) -> None:
    assert (memcached_fault(address) == "") == is_sound


@pytest.mark.parametrize(
    ("url", "is_sound"),
    [
        ("http://h:8080", True),
        ("https://[::1]:8080/", True),
        ("http://h/behind/a/proxy", True),
        ("h:8080", False),
        ("ftp://h", False),
        ("http://", False),
        ("http://h:0", False),
        ("http://h:99999", False),
        ("http://u:p@h", False),
        ("http://h?x=1", False),
        ("http://h#x", False),
        ("http:// h", False),
        ("http://::1:80", False),
    ],
)
def test_base_urls_of_instances(url: str, is_sound: bool) -> None:
    assert (base_url_fault(url) == "") == is_sound


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "http://h", "h/x", "::x", "1.2.3", "a b", "", "[::1]", "h\n", "a" * 300]
)
def test_hosts_to_listen_on(host: str) -> None:
    assert host_fault(host)


pieces = st.sampled_from(
    [
        "redis://",
        "rediss://",
        "unix://",
        "tcp://",
        "http://",
        "/",
        "//",
        "h",
        "10.0.0.1",
        "[::1]",
        ":",
        "1",
        "0",
        "70000",
        "-1",
        "@",
        "u:p@",
        "?db=",
        "?ssl_cert_reqs=none",
        "?db=1&x=2",
        "#",
        "{key}",
        "%",
        "a.b",
        "é",
    ]
) | st.just(" ")
addresses = st.lists(pieces, max_size=7).map("".join)


@given(addresses)
@settings(max_examples=500, deadline=None)
def test_an_address_that_is_accepted_can_be_used(address: str) -> None:
    """The drivers accept each address that is accepted here, and find the same server in it."""
    if not (redis_fault(address) or redis_query_fault(address)):
        connections: Any = RedisConnections.at(address)
        connection = connections.make_connection()
        assert str(connection.db).isdigit()
    if not memcached_fault(address):
        place = normalize_server_spec(address)
        assert isinstance(place, str) or (place[0] and 0 < place[1] < 65536)
    if not origin_fault(address):
        assert KeyAddress(address).of("k").host
    place_of(address)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://h", "redis://H:6379/0"),
        ("redis://h/1", "redis://u:p@h:6379?db=1"),
        ("http://h", "http://h:80/"),
    ],
)
def test_two_spellings_of_a_place_are_one(one: str, other: str) -> None:
    assert place_of(one) == place_of(other)


def test_neighbours_are_not_one() -> None:
    apart = [
        "redis://h/0",
        "redis://h/1",
        "redis://h:1",
        "unix:///a?db=0",
        "unix:///a?db=1",
        "unix:/a",
        "unix:/b",
    ]
    assert len({place_of(one) for one in apart}) == len(apart)


def test_every_type_of_a_required_field_has_an_empty_value() -> None:
    """A field of another type would raise `KeyError` where the document lacks it."""
    for kind, _ in PLACES:
        for field in msgspec.structs.fields(kind):
            if field.required:
                inner = field.type
                assert not (get_origin(inner) in (Union, UnionType) and NoneType in get_args(inner))
                read_struct_blank(inner)


def read_struct_blank(kind: Any) -> None:
    assert document._blank(kind) is not None


def test_yaml_of_the_sound_document_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text(yaml.safe_dump(TOPOLOGY))
    assert load_topology(tmp_path / "topology.yaml").version == 1
