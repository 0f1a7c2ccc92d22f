"""The document of `serve --namespaces`: what it takes, and what it says of the rest."""

from pathlib import Path

import pytest

from cachesvc.config.mistakes import Mistakes
from cachesvc.config.namespaces import read_namespaces, with_namespaces
from cachesvc.config.topology import Cell, Region, Topology
from cachesvc.model.errors import ConfigError

SERVERS = Topology(
    version=1,
    regions={"local": Region("redis://127.0.0.1:1/2")},
    cells={"c1": Cell("local", "redis://127.0.0.1:1/0")},
    namespaces={},
)
TEXT = 'namespaces: {pages: {owner: web, ttl: 1m, origin: {url: "http://127.0.0.1:9/{key}"}}, users: {owner: id}}'


def test_the_contracts_stand_on_the_embedded_servers(tmp_path: Path) -> None:
    found = with_namespaces(SERVERS)(TEXT, "ns.yaml")
    assert (found.cells, found.regions) == (SERVERS.cells, SERVERS.regions)
    assert list(found.namespaces) == ["pages", "users"]
    (tmp_path / "ns.yaml").write_text(TEXT)
    assert read_namespaces(tmp_path / "ns.yaml", Mistakes()) == found.namespaces


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("namespaces: {Pages: {owner: web}}", ["$.namespaces.Pages: "]),
        ("namespaces: {pages: {ttl: 1m}}", ["$.namespaces.pages.owner: "]),
        (
            "namespaces: {pages: {owner: web, tll: 1m}}",
            ["$.namespaces.pages.tll: unknown field (did you mean"],
        ),
        ("pages: {owner: web}", ["$.pages: unknown field", "$.namespaces: "]),
        (
            f"{{version: 2, cells: {{}}, {TEXT}}}",
            ["$.version: belongs to a topology document: give the file with --topology", "$.cells: belongs"],
        ),
    ],
)
def test_a_mistake_has_its_place_and_what_to_write(text: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        with_namespaces(SERVERS)(text, "ns.yaml")
    told = sorted(str(one) for one in caught.value.each())
    assert len(told) == len(said), told
    for one, begins in zip(told, sorted(said), strict=True):
        assert one.startswith(begins)
