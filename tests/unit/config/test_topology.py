"""The shared document: a sound one is read whole; each mistake is refused with path, reason and suggestion."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.config.document import read_struct
from cachesvc.config.service import load_topology
from cachesvc.config.topology import Topology
from cachesvc.config.topology_rules import check_topology
from cachesvc.model.errors import ConfigError
from cachesvc.tiers.l3.placement import Placement

SOUND: dict[str, Any] = {
    "version": 3,
    "regions": {
        "eu": {
            "queue": "redis://127.0.0.1:26100/0",
            "pool": {
                "m1": {"address": "127.0.0.1:21101", "weight": 2},
                "m2": {"address": "unix:/run/m2.sock"},
            },
            "instances": {"eu-a": "http://127.0.0.1:8101"},
        },
        "us-west": {"queue": "redis://127.0.0.1:26200/0", "pool": {"m1": {"address": "stand-in"}}},
    },
    "cells": {
        "c1": {"region": "eu", "url": "redis://127.0.0.1:26101/0"},
        "c2": {"region": "us-west", "url": "unix:///run/c2.sock?db=1", "weight": 0.5, "active": False},
    },
    "namespaces": {
        "pages": {"owner": "web", "feed_loss": "serve"},
        "docs": {
            "owner": "docs",
            "ttl": "1m",
            "origin": {"url": "http://127.0.0.1:9100/docs/{key}", "headers": {"X-A": "b"}},
        },
    },
    "pins": {"ws-7": "c2"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A sound document with one thing wrong: `value` at the dotted `path` (`...` removes)."""
    document = copy.deepcopy(SOUND)
    *sections, leaf = path.split("/")
    here = document
    for section in sections:
        here = here[section]
    if value is ...:
        del here[leaf]
    else:
        here[leaf] = value
    return document


def load(tmp_path: Path, document: dict[str, Any]) -> Any:
    path = tmp_path / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_topology(path)


def test_a_sound_document_is_read_whole(tmp_path: Path) -> None:
    topology = load(tmp_path, SOUND)
    assert topology.version == 3
    assert topology.regions["eu"].pool["m1"].weight == 2.0
    assert topology.cells["c2"].active is False
    assert topology.namespaces["pages"].origin is None
    assert topology.namespaces["docs"].origin.headers == {"X-A": "b"}
    assert topology.namespaces["docs"].ttl == 60_000_000
    assert topology.pins == {"ws-7": "c2"}


def test_a_document_says_where_partitions_were_while_they_move(tmp_path: Path) -> None:
    """A former cell may be inactive, and unpinned, by now."""
    former = load(tmp_path, changed("former", {"cells": {"c1": 1, "c2": 0.5}})).former
    assert (former.cells, former.pins) == ({"c1": 1.0, "c2": 0.5}, {})
    assert load(tmp_path, changed("former", {"cells": {"c1": 1}})).former.pins == {}, (
        "a pin that was not there moved a partition"
    )


def test_the_guide_to_moving_shows_documents_of_one_move(tmp_path: Path) -> None:
    """Each is sound; the second says where partitions were in the first; the third moves nothing."""
    texts = re.findall(r"```yaml\n(.*?)```", Path("docs/moving.md").read_text(), re.DOTALL)
    before, moving, after = (load(tmp_path, yaml.safe_load(text)) for text in texts)
    assert [document.version for document in (before, moving, after)] == [7, 8, 9]
    former = Placement(moving).former
    assert former is not None
    assert former.id == Placement(before).id
    assert Placement(moving).id == Placement(after).id
    assert after.former is None


@pytest.mark.parametrize("path", sorted(Path("config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_documents_are_sound(path: Path) -> None:
    assert load_topology(path).cells


CASES: list[tuple[str, Any, str]] = [
    ("version", ..., "$.version: is missing: it has no default"),
    ("version", 0, "$.version: must be 1 or more"),
    ("region", {}, "$.region: unknown field (did you mean 'regions'?)"),
    ("regions/Eu", {"queue": "redis://h/0"}, "$.regions.Eu: 'Eu' is no region name: it must match"),
    (
        "regions/eu/queue",
        "amqp://h/0",
        "$.regions.eu.queue: (amqp) must be redis://host:port/db, redis+sentinel://host,host,host/name/db "
        "or unix:///path?db=0",
    ),
    ("regions/eu/queue", "redis://h:port/0", "$.regions.eu.queue: (redis) must be"),
    ("regions/eu/pool/m 1", {"address": "h:1"}, "$.regions.eu.pool.m 1: 'm 1' is no memcached server name"),
    (
        "regions/eu/pool/m1/address",
        "localhost",
        "$.regions.eu.pool.m1.address: 'localhost' is no host:port, tls:host:port or unix:/path",
    ),
    (
        "regions/eu/pool/m1/address",
        "unix:/run/m2.sock",
        "$.regions.eu.pool.m2.address: is the same as $.regions.eu.pool.m1",
    ),
    ("regions/eu/pool/m1/weight", 0, "$.regions.eu.pool.m1.weight: 0.0 is no weight"),
    (
        "regions/eu/gutter",
        {"m1": {"address": "h:11311"}},
        "$.regions.eu.gutter.m1: is a name of the pool too: give the server in the gutter another",
    ),
    (
        "regions/eu/gutter",
        {"g1": {"address": "unix:/run/m2.sock"}},
        "$.regions.eu.gutter.g1.address: is the same as $.regions.eu.pool.m2",
    ),
    (
        "regions/eu/gutter",
        {"g1": {"address": "stand-in"}},
        "$.regions.eu.gutter.g1.address: 'stand-in' is no host:port, tls:host:port or unix:/path",
    ),
    (
        "regions/eu/rings",
        "zone",
        "$.regions.eu.pool.m1.zone: is missing: with `rings: zone` a server is on the ring of its zone",
    ),
    (
        "regions/us-west",
        {"queue": "redis://127.0.0.1:26200/0", "rings": "zone"},
        "$.regions.us-west.rings: is zone, and there is no memcached server",
    ),
    (
        "regions/eu/zones",
        {"eu-b": "a"},
        "$.regions.eu.zones.eu-b: no instance 'eu-b' in this region (did you mean 'eu-a'?)",
    ),
    ("regions/eu/zones", {"eu-a": "A z"}, "$.regions.eu.zones.eu-a: 'A z' is no zone name"),
    ("regions/eu/pool/m1/zone", "1a", "$.regions.eu.pool.m1.zone: '1a' is no zone name"),
    (
        "regions/us-west",
        {"queue": "redis://127.0.0.1:26200/0", "gutter": {"g1": {"address": "h:11311"}}},
        "$.regions.us-west.gutter: takes the keys of the servers in pool, and there are none",
    ),
    (
        "regions/eu/relays",
        {"eu-b": ""},
        "$.regions.eu.relays.eu-b: no instance 'eu-b' in this region (did you mean 'eu-a'?)",
    ),
    (
        "regions/eu/relays",
        {"eu-a": "eu-b"},
        "$.regions.eu.relays.eu-a: no relay 'eu-b' in this region",
    ),
    (
        "regions/eu/relays",
        {"eu-a": "eu-a"},
        "$.regions.eu.relays.eu-a: reads from itself, over the relays that it names",
    ),
    (
        "regions/eu/instances/eu-a",
        "127.0.0.1:8101",
        "$.regions.eu.instances.eu-a: '127.0.0.1:8101' is no base URL",
    ),
    ("cells/c2/region", "us-wst", "$.cells.c2.region: no region 'us-wst' (did you mean 'us-west'?)"),
    ("cells/c2/url", "redis://127.0.0.1:26101/0", "$.cells.c2.url: is the same as $.cells.c1.url"),
    ("cells/c2/weight", float("nan"), "$.cells.c2.weight: nan is no weight"),
    ("cells/c2/active", "yes please", "$.cells.c2.active: Expected `bool`, got `str` ('yes please')"),
    ("cells/c1/active", False, "$.cells: there is no active cell"),
    ("cells", {}, "$.cells: there is no active cell"),
    ("pins/ws-8", "c3", "$.pins.ws-8: no cell 'c3' (there is c1, c2)"),
    ("pins/{ws-8}", "c1", "$.pins.{ws-8}: name the partition without its braces: ws-8"),
    ("regions/eu/partitions", [""], "$.regions.eu.partitions: an empty prefix would be that of every"),
    ("regions/eu/partitions", ["{eu."], "$.regions.eu.partitions: name the partition's beginning without"),
    (
        "regions/us-west/partitions",
        ["us."],
        "$.regions.us-west.partitions: its partitions would have no home: the region has no active cell",
    ),
    (
        "former",
        {"cells": {"c1": 1}, "partitions": {"e": ["eu."]}},
        "$.former.partitions.e: no region 'e'",
    ),
    ("former", {}, "$.former.cells: is missing"),
    ("former", {"cells": {}}, "$.former.cells: is empty: name the cells that were active"),
    (
        "former",
        {"cells": {"c9": 1}},
        "$.former.cells.c9: no cell 'c9' (there is c1, c2); keep it under cells, with active: false",
    ),
    ("former", {"cells": {"c2": -1}}, "$.former.cells.c2: -1.0 is no weight"),
    ("former", {"cells": {"c2": 1}, "pins": {"a": "c9"}}, "$.former.pins.a: no cell 'c9'"),
    (
        "former",
        {"cells": {"c2": 1}, "pins": {"{a}": "c1"}},
        "$.former.pins.{a}: name the partition without its braces: a",
    ),
    ("former", {"cells": {"c1": 1}, "pins": {"ws-7": "c2"}}, "$.former: is where partitions are now"),
    ("former", {"cells": {"c2": 1}, "weights": {}}, "$.former.weights: unknown field"),
    ("namespaces/Pages", {"owner": "web"}, "$.namespaces.Pages: 'Pages' is no namespace name: it must match"),
    (
        "namespaces/invalidations",
        {"owner": "web"},
        "$.namespaces.invalidations: is a path of the API itself: choose another",
    ),
    ("namespaces/pages/owner", " ", "$.namespaces.pages.owner: is empty"),
    ("namespaces/pages/tll", "5m", "$.namespaces.pages.tll: unknown field (did you mean 'ttl'?)"),
    ("namespaces/pages/ttl", "5min", "$.namespaces.pages.ttl: '5min' is not a duration"),
    ("namespaces/pages/ttl", "31d", "$.namespaces.pages.ttl: with its stale windows it is above 30d"),
    ("namespaces/pages/jitter", 1.0, "$.namespaces.pages.jitter: 1.0 is not a share"),
    ("namespaces/pages/jitter", float("nan"), "$.namespaces.pages.jitter: nan is not a share"),
    ("namespaces/pages/early_refresh", -1, "$.namespaces.pages.early_refresh: -1.0 is not 0 or more"),
    (
        "namespaces/pages/feed_loss",
        "sever",
        "$.namespaces.pages.feed_loss: 'sever' is none of 'bound', 'serve' (did you mean",
    ),
    ("namespaces/pages/lease", "50ms", "$.namespaces.pages.lease: below 100ms"),
    ("namespaces/pages/max_lag", 0, "$.namespaces.pages.max_lag: must be longer than 0"),
    (
        "namespaces/pages/l1",
        {"guaranteed": "64 MB"},
        "$.namespaces.pages.l1.guaranteed: '64 MB' is neither a size nor a percentage: write '64MiB' or '40%'",
    ),
    (
        "namespaces/pages/l1",
        {"at_most": "140%"},
        "$.namespaces.pages.l1.at_most: '140%' is more than the whole: 100% at most",
    ),
    ("namespaces/pages/l1", {"at_most": 40}, "$.namespaces.pages.l1.at_most: 40 has no unit"),
    ("namespaces/pages/l1", {"at_least": "1MiB"}, "$.namespaces.pages.l1.at_least: unknown field"),
    ("namespaces/pages/origin", {}, "$.namespaces.pages.origin.url: is missing"),
    (
        "namespaces/docs/origin/url",
        "http://h/docs",
        "$.namespaces.docs.origin.url: 'http://h/docs' must hold {key} once",
    ),
    (
        "namespaces/docs/origin/url",
        "ftp://h/{key}",
        "$.namespaces.docs.origin.url: 'ftp://h/{key}' is no http(s)://host/path",
    ),
    (
        "namespaces/docs/origin/url",
        "http://{key}/",
        "$.namespaces.docs.origin.url: a key must not choose the host",
    ),
    (
        "namespaces/docs/origin/soft_deadline",
        "4s",
        "$.namespaces.docs.origin.hard_deadline: is below the soft_deadline",
    ),
    (
        "namespaces/docs/lease",
        "200ms",
        "$.namespaces.docs.origin.soft_deadline: is above the namespace's lease",
    ),
    (
        "namespaces/docs/max_value",
        "2MiB",
        "$.namespaces.docs.origin.max_body: is below the namespace's max_value",
    ),
    (
        "namespaces/docs/origin/headers",
        {"A B": "c"},
        "$.namespaces.docs.origin.headers.A B: is no header name",
    ),
    (
        "namespaces/docs/origin/headers",
        {"A": "s\r\nX: y"},
        "$.namespaces.docs.origin.headers.A: its value holds a control",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), CASES, ids=[f"{path}={value}" for path, value, _ in CASES]
)
def test_a_mistake_is_refused_with_path_and_reason(
    tmp_path: Path, path: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changed(path, value))
    assert str(caught.value).startswith(message)


def test_secrets_are_not_repeated_in_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as url:
        load(tmp_path, changed("cells/c1/url", "http://user:hunter2@h/0"))
    with pytest.raises(ConfigError) as header:
        load(tmp_path, changed("namespaces/docs/origin/headers", {"Authorization": "hunter2\n"}))
    assert "hunter2" not in f"{url.value}{header.value}"


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5m", "1MiB", "http://["])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)


def places(document: Any, path: str = "") -> list[str]:
    if not isinstance(document, dict):
        return []
    return [
        place
        for name, value in document.items()
        for place in (f"{path}{name}", *places(value, f"{path}{name}/"))
    ]


@given(st.sampled_from(places(SOUND)), anything)
def test_whatever_stands_anywhere_it_is_read_or_refused_with_its_path(path: str, value: Any) -> None:
    where = "$"
    try:
        check_topology(read_struct(changed(path, value), Topology))
    except ConfigError as error:
        where = error.path
    assert where.startswith("$")
