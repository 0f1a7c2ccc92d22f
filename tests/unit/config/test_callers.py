"""Callers of the topology document: what is taken, what is refused, and where there must be some."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from cachesvc.cli import main
from cachesvc.config.callers import Callers, check_anonymous
from cachesvc.config.document import parse_text, read_struct
from cachesvc.config.mistakes import Mistakes
from cachesvc.config.service import Server, Service, check_together
from cachesvc.config.topology import Cell, Region, Topology
from cachesvc.config.topology_rules import check_topology
from cachesvc.model.errors import ConfigError
from cachesvc.web.replies.redaction import shown_topology

HASH, OTHER = "ab" * 32, "cd" * 32
TOPOLOGY = Topology(
    1, {"eu": Region("redis://127.0.0.1:1/0")}, {"c1": Cell("eu", "redis://127.0.0.1:1/1")}, {}
)
RIGHT = f"""
named:
  checkout:
    scopes: [read:pages, "invalidate:shop-*"]
    tokens:
      - sha256: {HASH}
      - {{sha256: {OTHER}, until: 2026-12-01T00:00:00Z}}
    certificates: ["spiffe://prod/checkout", checkout.internal]
issuers:
  ci:
    issuer: https://ci.example
    audience: cachesvc
    scopes: ["invalidate:*"]
    jwks_url: https://ci.example/keys
anonymous: ["read:*"]
"""


def told(callers: Mapping[str, Any]) -> list[str]:
    found = Mistakes()
    read = read_struct({"callers": callers, **BASE}, Topology, found=found)
    check_topology(read, found)
    return [str(one) for one in found.noted()]


BASE = {
    "version": 1,
    "regions": {"eu": {"queue": "redis://127.0.0.1:1/0"}},
    "cells": {"c1": {"region": "eu", "url": "redis://127.0.0.1:1/1"}},
    "namespaces": {},
}


def test_callers_are_taken() -> None:
    assert told(parse_text(RIGHT, name="callers")) == []


def named(**fields: Any) -> Mapping[str, Any]:
    return {"named": {"a": {"scopes": ["read:x"], **fields}}}


def issuer(**fields: Any) -> Mapping[str, Any]:
    right = {"issuer": "i", "audience": "a", "scopes": ["read:x"], "jwks_file": "keys.json"}
    return {"issuers": {"ci": {**right, **fields}}}


@pytest.mark.parametrize(
    ("callers", "where", "why"),
    [
        (named(scopes=["read"]), "named.a.scopes[0]", "is no scope"),
        (named(scopes=[]), "named.a.scopes", "is empty"),
        ({"anonymous": ["read:a b"]}, "anonymous[0]", "is no scope"),
        ({"named": {"a b": {"scopes": ["read:x"]}}}, "named.a b", "is no name of a caller"),
        ({"named": {"ci:x": {"scopes": ["read:x"]}}}, "named.ci:x", "is no name of a caller"),
        ({"named": {"anonymous": {"scopes": ["read:x"]}}}, "named.anonymous", "without an identity"),
        (named(tokens=[{"sha256": "ab"}]), "named.a.tokens[0].sha256", "is no SHA-256"),
        (named(tokens=[{"sha256": HASH.upper()}]), "named.a.tokens[0].sha256", "is no SHA-256"),
        (
            named(tokens=[{"sha256": HASH}, {"sha256": HASH, "until": "2026-12-01T00:00:00Z"}]),
            "named.a.tokens[1].sha256",
            "is the same as",
        ),
        (named(tokens=[{"sha256": HASH}, {"sha256": OTHER}]), "named.a.tokens", "two without an end"),
        (
            named(tokens=[{"sha256": x * 64, "until": "2026-12-01T00:00:00Z"} for x in "abc"]),
            "named.a.tokens",
            "more than 2",
        ),
        (
            named(tokens=[{"sha256": HASH, "until": "2026-12-01T00:00:00"}]),
            "named.a.tokens[0].until",
            "no time zone",
        ),
        (
            named(tokens=yaml.safe_load(f"[{{sha256: {HASH}, until: 2026-12-01}}]")),
            "named.a.tokens[0].until",
            "is a day",
        ),
        (named(certificates=["a b"]), "named.a.certificates[0]", "neither a SPIFFE id"),
        (named(certificates=["*.internal"]), "named.a.certificates[0]", "neither a SPIFFE id"),
        (named(certificates=["a.b", "a.b"]), "named.a.certificates[1]", "is the same as"),
        (issuer(algorithms=["HS256"]), "issuers.ci.algorithms[0]", "is none of RS256"),
        (issuer(algorithms=["none"]), "issuers.ci.algorithms[0]", "is none of RS256"),
        (issuer(algorithms=[]), "issuers.ci.algorithms", "is empty"),
        (issuer(audience=""), "issuers.ci.audience", "is empty"),
        (issuer(scopes=[]), "issuers.ci.scopes", "is empty"),
        (issuer(jwks_file=""), "issuers.ci.jwks_url", "one of both"),
        (issuer(jwks_url="https://i/keys"), "issuers.ci.jwks_url", "one of both"),
        (issuer(jwks_file="", jwks_url="http://i/keys"), "issuers.ci.jwks_url", "use https://"),
        (issuer(leeway="6m"), "issuers.ci.leeway", "above 5m"),
        (
            {"issuers": {name: issuer()["issuers"]["ci"] for name in ("a", "b")}},
            "issuers.b.issuer",
            "is the same as $.callers.issuers.a.issuer",
        ),
    ],
)
def test_each_mistake_is_said_at_its_place(callers: Mapping[str, Any], where: str, why: str) -> None:
    (said,) = told(callers)
    assert said.startswith(f"$.callers.{where}: ")
    assert why in said


def test_issuers_without_their_extra_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachesvc.config.callers.find_spec", lambda _: None)
    (said,) = told(issuer())
    assert said == "$.callers.issuers: need the extra jwt: pip install 'cachesvc[jwt]'"


def test_the_shown_document_has_no_callers() -> None:
    assert "callers" not in shown_topology(replace(TOPOLOGY, callers=Callers(anonymous=("read:x",))))


# where there must be callers ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost"])
def test_a_machine_of_its_own_needs_no_callers(host: str) -> None:
    check_anonymous(host, None)


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize("has_topology", [True, False])
def test_commands_say_so_before_anything_starts(
    command: str, has_topology: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "topology.yaml").write_text(yaml.safe_dump(BASE))
    environ = {"CACHESVC_SERVER_HOST": "0.0.0.0", "CACHESVC_REGION": "eu"}  # noqa: S104  not bound
    topology = ["--topology", str(tmp_path / "topology.yaml")] if has_topology else []
    assert main([command, *topology], environ) == 2
    said = capsys.readouterr().err
    assert said.startswith("cachesvc: $.server.host: '0.0.0.0' may be reached from other machines")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "cache.internal"])  # noqa: S104  not bound
def test_an_address_that_others_reach_needs_callers(host: str) -> None:
    service = Service(region="eu", server=Server(host=host))
    with pytest.raises(ConfigError) as caught:
        check_together(service, TOPOLOGY)
    said = str(caught.value)
    assert said.startswith(f"$.server.host: {host!r} may be reached from other machines")
    assert "cachesvc token new --name checkout" in said
    written = yaml.safe_load(said[said.index("`callers: {") + 1 : said.rindex("`")])
    check_together(service, read_struct({**BASE, **written}, Topology))
    check_together(service, replace(TOPOLOGY, callers=Callers()))
