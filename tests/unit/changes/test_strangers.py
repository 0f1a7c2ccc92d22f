"""Instances that follow a region's fences, and that the topology document does not name."""

from typing import Any

import pytest

from cachesvc.changes.contract import FollowerPosition
from cachesvc.changes.strangers import Strangers
from cachesvc.config.topology import Region


class Stream:
    """A stream with these followers, as `region/name`."""

    def __init__(self, *followers: str) -> None:
        names = [one.split("/") for one in followers]
        self.listed = [FollowerPosition(region, name, "0-0", 0) for region, name in names]

    async def followers(self, of: str = "") -> Any:
        assert of == ""
        return self.listed


def region(*instances: str) -> Region:
    return Region(queue="redis://h/0", instances=dict.fromkeys(instances, "http://h:1"))


@pytest.mark.parametrize(
    ("followers", "strangers"),
    [
        (("eu/a", "eu/b"), []),
        (("eu/c", "eu/a", "eu/c"), ["eu/c"]),
        (("us/any", "us/other"), []),  # the region names no instance
        (("asia/a", "eu/a"), ["asia/a"]),
    ],
)
async def test_strangers_are_those_that_a_region_with_names_does_not_name(
    followers: tuple[str, ...], strangers: list[str]
) -> None:
    regions = {"eu": region("a", "b"), "us": region()}
    found = Strangers(Stream(*followers), lambda: regions)  # type: ignore[arg-type]  # followers alone
    await found.look()
    assert found.names == strangers


async def test_a_document_that_names_an_instance_ends_it() -> None:
    regions = {"eu": region("a")}
    found = Strangers(Stream("eu/a", "eu/c"), lambda: regions)  # type: ignore[arg-type]  # followers alone
    await found.look()
    assert found.names == ["eu/c"]
    regions["eu"] = region("a", "c")
    await found.look()
    assert found.names == []
