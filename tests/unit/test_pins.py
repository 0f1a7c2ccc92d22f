"""The pinned versions (config/requirements/, written by `make lock`) fit what both pyproject.toml ask for."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PINS = REPOSITORY / "config" / "requirements"
SERVICE = REPOSITORY / "pyproject.toml"
SDK = REPOSITORY / "clients" / "python" / "pyproject.toml"


def document(pyproject: Path) -> Mapping[str, Any]:
    return tomllib.loads(pyproject.read_text())


def to_run(pyproject: Path) -> list[str]:
    found = document(pyproject)
    return [*found["project"]["dependencies"], *found["build-system"]["requires"]]


def extras(pyproject: Path) -> Iterator[str]:
    for extra in document(pyproject)["project"].get("optional-dependencies", {}).values():
        yield from extra


def pinned(file: str) -> dict[str, set[str]]:
    """The versions of each package. One package has several if they differ by Python or by system."""
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", (PINS / file).read_text(), re.MULTILINE):
        pins.setdefault(canonicalize_name(name), set()).add(version)
    return pins


WANTED = [
    *[("run.txt", text) for text in to_run(SERVICE)],
    *[("dev.txt", text) for text in [*to_run(SERVICE), *to_run(SDK), *extras(SERVICE), *extras(SDK)]],
]


@pytest.mark.parametrize(("file", "wanted"), WANTED)
def test_each_pin_is_in_the_range_of_its_pyproject(file: str, wanted: str) -> None:
    requirement = Requirement(wanted)
    versions = pinned(file).get(canonicalize_name(requirement.name), set())
    assert versions, f"{requirement.name} is not pinned in config/requirements/{file}: run `make lock`"
    outside = {version for version in versions if version not in requirement.specifier}
    assert not outside, f"{wanted}, and config/requirements/{file} pins {outside}: run `make lock`"


def test_what_runs_is_what_is_tested() -> None:
    run, dev = pinned("run.txt"), pinned("dev.txt")
    assert {name: versions for name, versions in run.items() if dev.get(name) != versions} == {}


@pytest.mark.parametrize("file", ["run.txt", "dev.txt"])
def test_every_pin_has_hashes_and_no_place_is_named_to_get_it_from(file: str) -> None:
    lines = (PINS / file).read_text().splitlines()
    pins = [line for line in lines if re.match(r"[\w.-]+==", line)]
    assert [line for line in pins if not line.endswith("\\")] == []
    assert [line for line in lines if "://" in line or line.startswith("-")] == []


TRIED = {"redis": "8.1", "aiohttp": "3.12", "pymemcache": "4.0", "msgspec": "0.19"} | {
    "cachetools": "6.0",
    "prometheus-client": "0.22",
}
"""The oldest versions with which an instance was started and a key written, read and invalidated.

With redis 8.0.1 no connection to a cell or a queue can be made, and 6.4.0 cannot be imported.
"""


def test_what_is_allowed_is_not_older_than_what_was_tried() -> None:
    lower: dict[str, set[str]] = {
        canonicalize_name(requirement.name): {one.version for one in requirement.specifier}
        for requirement in map(Requirement, document(SERVICE)["project"]["dependencies"])
    }
    assert {name: lower[name] for name in TRIED} == {name: {version} for name, version in TRIED.items()}
