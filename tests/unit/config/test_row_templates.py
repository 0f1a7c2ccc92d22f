"""Templates of keys and tags: what they render, and what is refused with its path."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.config.document import parse_text, read_struct
from cachesvc.config.row_templates import Column, check_sources, parse_template
from cachesvc.config.topology import Namespace
from cachesvc.model.errors import ConfigError
from cachesvc.model.partition import partition

ROW = {"id": "42", "workspace_id": "7", "Kind": "page", "a$b": "x"}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{id}", "42"),
        ("block:{id}", "block:42"),
        ("{ws-{workspace_id}}:block:{id}", "{ws-7}:block:42"),
        ("{{workspace_id}}:{id}", "{7}:42"),
        ("{{workspace_id}-{id}}", "{7-42}"),
        ("{a-{id}}:{b-{id}}", "{a-42}:{b-42}"),
        ("{id?}/{Kind}/{a$b}", "42/page/x"),
        ("Ω {id}", "Ω 42"),
    ],
)
def test_columns_are_replaced_and_the_braces_of_a_partition_stay(template: str, rendered: str) -> None:
    assert parse_template(template).render(ROW) == rendered


@pytest.mark.parametrize(
    ("template", "is_placed"),
    [("{ws-{workspace_id}}:block:{id}", True), ("{{id}}", True), ("block:{id}", False), ("{id}", False)],
)
def test_the_partition_of_a_template_is_that_of_what_it_renders(template: str, is_placed: bool) -> None:
    parsed = parse_template(template)
    rendered = "".join(part if isinstance(part, str) else ROW[part.name] for part in parsed.partition)
    assert rendered == partition(parsed.render(ROW))
    assert parsed.is_placed is is_placed


def test_a_column_may_be_said_to_be_null_at_times() -> None:
    assert parse_template("{id}:{parent_id?}").columns == (
        Column("id"),
        Column("parent_id", may_be_null=True),
    )


SOUND = {"source": "public.blocks", "key": "{ws-{workspace_id}}:block:{id}"}

CASES: list[tuple[dict[str, Any], str]] = [
    ({"source": "blocks"}, ".source: 'blocks' is no table: schema.table, or database.table"),
    ({"source": "a.b.c.d"}, ".source: 'a.b.c.d' is no table"),
    ({"keys": ["{id}"]}, ".key: give `key` or `keys`, not both"),
    ({"key": ""}, ": names neither keys nor tags"),
    ({"key": "block"}, ".key: 'block': names no {column}: every row would have the same one"),
    (
        {"key": "{ws-7}:{id}"},
        ".key: '{ws-7}:{id}': '{ws-7}' is neither a column, {name}, nor a partition around one",
    ),
    ({"key": "{id:04d}"}, ".key: '{id:04d}': '{id:04d}' is neither a column"),
    ({"key": "{}:{id}"}, ".key: '{}:{id}': '{}' is neither a column"),
    ({"key": "{ws-{id}"}, ".key: '{ws-{id}': the brace at 0 is not closed"),
    ({"key": "{id}}"}, ".key: '{id}}': the brace at 4 closes nothing"),
    ({"key": "{a{b{id}}}"}, ".key: '{a{b{id}}}': the braces at 0 and 2 nest too deep"),
    ({"key": "{id}\n"}, ".key: '{id}\\n' holds a control character"),
    ({"key": "", "keys": ["{id}", "x{"]}, ".keys[1]: 'x{': the brace at 1 is not closed"),
    ({"tags": ["Ω{id}"]}, ".tags[0]: a tag is printable ASCII"),
    ({"tags": ["page-{id}", "{ws-{id}}:x"]}, ".tags[1]: its {partition} is not that of a key of this source"),
    (
        {"key": "{id}", "tags": ["{ws-{id}}:x"]},
        ".tags[0]: its {partition} is not that of a key of this source",
    ),
    ({"tag": "x"}, ".tag: unknown field (did you mean 'tags'?)"),
    ({"keys": "{id}"}, ".keys: Expected `array`, got `str` ('{id}')"),
    ({"soft": "yes please"}, ".soft: Expected `bool`"),
]


def read_and_check(*sources: dict[str, Any]) -> Namespace:
    namespace = read_struct({"owner": "web", "sources": list(sources)}, Namespace, "$.namespaces.pages")
    check_sources(namespace.sources, "$.namespaces.pages.sources")
    return namespace


@pytest.mark.parametrize(
    ("changed", "message"), CASES, ids=[f"{i}-{message[:30]}" for i, (_, message) in enumerate(CASES)]
)
def test_a_mistake_is_refused_with_path_and_reason(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_and_check(SOUND, {**SOUND, **changed})
    assert str(caught.value).startswith(f"$.namespaces.pages.sources[1]{message}")


@pytest.mark.parametrize(
    "tags",
    [
        ["page-{page_id}"],
        ["{ws-{workspace_id}}:page-{page_id}", "all-blocks-{workspace_id}"],
        ["{ws-{workspace_id?}}:pages"],
    ],
)
def test_tags_of_the_keys_partition_and_without_one_are_taken(tags: list[str]) -> None:
    assert read_and_check({**SOUND, "tags": tags}).sources[0].tags == tuple(tags)


def test_a_source_of_tags_alone_may_name_any_partition() -> None:
    assert read_and_check(SOUND, {"source": "public.blocks", "tags": ["{page-{page_id}}:blocks"]})


def test_the_example_in_the_guide_is_sound() -> None:
    example = Path("docs/producers.md").read_text().split("```yaml\n")[1].split("```")[0]
    (source,) = parse_text(example, name="producers.md")["namespaces"]["pages"]["sources"]
    assert read_and_check(source).sources[0].source == "public.blocks"


@given(st.text(alphabet="{}a?1 ", max_size=12) | st.text(max_size=12))
def test_whatever_is_written_is_a_template_or_refused(text: str) -> None:
    try:
        template = parse_template(text)
    except ValueError:
        return
    row = {column.name: "v" for column in template.columns}
    assert row
    assert template.render(row).count("{") == sum(part == "{" for part in template.parts)
