"""docs/reference.md is what the code says, and the code leaves nothing unsaid."""

import re
from itertools import chain
from pathlib import Path

import pytest

from cachesvc.commands.reference import Field, page, sections, written
from cachesvc.config.environment import NOT_SETTINGS, settings
from cachesvc.config.service import Service
from cachesvc.config.topology import Topology
from cachesvc.model.units import Duration, Size

REPOSITORY = Path(__file__).parents[3]
COMMAND = "python -m cachesvc.commands.reference > docs/reference.md"

FIELDS = [field for section in chain(sections(Service), sections(Topology)) for field in section.fields]


def test_the_committed_page_is_the_one_that_the_code_makes() -> None:
    assert (REPOSITORY / "docs" / "reference.md").read_text() == page(), f"run `{COMMAND}`"


def test_no_line_is_wider_than_120_columns() -> None:
    assert [line for line in page().splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_every_field_says_what_it_means(field: Field) -> None:
    assert field.meaning, f"{field.path} has no docstring in cachesvc/config"


def test_every_variable_that_the_code_names_is_known() -> None:
    """A name with the prefix that is not known stops the start, so a command must not read one."""
    named = {
        name
        for module in (REPOSITORY / "cachesvc").rglob("*.py")
        for name in re.findall(r'"(CACHESVC_[A-Z0-9_]+)"', module.read_text())
    }
    assert named - {name for name, _ in settings(Service)} - {*NOT_SETTINGS} == set()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Duration.parse("90s"), "90s"),
        (Duration.parse("60m"), "1h"),
        (Duration.parse("1.5ms"), "1500us"),
        (Duration(0), "0s"),
        (Size.parse("1024KiB"), "1MiB"),
        (Size(0), "0B"),
        ("", '""'),
        (False, "false"),
    ],
)
def test_a_default_is_written_as_in_a_document(value: object, text: str) -> None:
    assert written(value) == text
