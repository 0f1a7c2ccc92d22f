"""Limits of the shared document: what is read, and what is told of a mistake."""

from typing import Any

import pytest

from cachesvc.config.service import load_topology
from cachesvc.model.errors import ConfigError

DOCUMENT = """
version: 1
regions: {eu: {queue: "redis://q:6379/0"}}
cells: {c1: {region: eu, url: "redis://c:6379/0"}}
namespaces: {pages: {owner: web, %s}}
"""


def namespace_with(tmp_path: Any, text: str) -> Any:
    document = tmp_path / "topology.yaml"
    document.write_text(DOCUMENT % text)
    return load_topology(document).namespaces["pages"]


def test_limits_are_read_with_the_burst_of_a_second(tmp_path: Any) -> None:
    pages = namespace_with(
        tmp_path,
        "origin_budget: {concurrency: 64, loads_per_second: 500, burst: 50}, "
        "rates: {reads: {per_second: 0.5}, bytes: {per_second: 2MiB}}",
    )
    assert pages.origin_budget.most_at_once == 50
    assert pages.rates.reads.most_at_once == 1
    assert pages.rates.bytes.most_at_once == 2 << 20
    assert list(pages.rates.named) == ["reads", "bytes"]


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("origin_budget: {}", "origin_budget", "limits nothing"),
        ("origin_budget: {concurrency: -1}", "origin_budget.concurrency", "-1 is not 0 to"),
        ("origin_budget: {concurrency: 4, burst: 3}", "origin_budget.burst", "needs loads_per_second"),
        ("origin_budget: {loads_per_second: 9, burst: 0.5}", "origin_budget.burst", "0.5 is not 1 to"),
        ("rates: {}", "rates", "limits nothing"),
        ("rates: {reads: {per_second: 0}}", "rates.reads.per_second", "0.0 is no rate"),
        ("rates: {read: {per_second: 1}}", "rates", "read"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Any, text: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        namespace_with(tmp_path, text)
    assert f"$.namespaces.pages.{path}" in str(caught.value)
    assert why in str(caught.value)
