"""The pages of the repository: links lead somewhere, every page is in the index, and pages agree with the code they name."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("clients/**/*.md"),
        ROOT / "loadtests/README.md",
    )
    if not {".venv", "node_modules"} & set(page.parts)
)
LONGEST = 120
"""Columns of a line of prose."""

LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    made = set()
    for line in CODE.sub("", page.read_text()).splitlines():
        if match := re.match(r"#{1,6} (.+)", line):
            slug = re.sub(r"[^\w\- ]", "", match[1].strip().lower()).replace(" ", "-")
            made.add(f"{slug}-{found[slug]}" if slug in found else slug)
            found[slug] = found.get(slug, 0) + 1
    return made


def broken_links(page: Path) -> list[str]:
    broken = []
    for match in LINK.finditer(CODE.sub("", page.read_text())):
        target = match[1] or match[2]
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_and_a_missing_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading\n\n[a](#a-heading) [b](#another) [c](missing.md)\n\n```\n[d](code.md)\n```\n"
    )
    assert broken_links(page) == ["#another", "missing.md"]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_lines_of_prose_are_not_too_long(page: Path) -> None:
    """Lines without a space in their second half are links or commands that cannot be broken."""
    lines = enumerate(page.read_text().splitlines(), 1)
    assert [number for number, line in lines if len(line) > LONGEST and " " in line[LONGEST // 2 :]] == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target, _ in LINK.findall(index.read_text())}
    pages = {page for page in ROOT.glob("docs/*.md") if page != index}
    assert pages - linked == set()


def test_the_map_names_files_that_are_there() -> None:
    named = re.findall(r"`([\w./]+/[\w.]*)`", (ROOT / "docs" / "map.md").read_text())
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_trace_of_the_page_is_a_test_and_every_such_test_is_on_the_page() -> None:
    page = (ROOT / "docs" / "coherence.md").read_text()
    described = re.findall(r"^- \*\*(\d+)\.\*\* ", page, re.MULTILINE)
    assert described == [str(number) for number in range(1, len(described) + 1)]
    tested = set()
    for file in (*ROOT.glob("tests/paths/test_*.py"), *ROOT.glob("clients/python/tests/test_*.py")):
        tested |= {int(number) for number in re.findall(r"def test_trace_(\d+)_", file.read_text())}
    assert tested == set(map(int, described))


PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.dot"))


@pytest.mark.parametrize("source", PICTURES, ids=[source.stem for source in PICTURES])
def test_a_picture_shows_the_text_of_its_source(source: Path) -> None:
    """Whoever changes a `.dot` file runs `make pictures`: every line of every label is in the SVG."""
    labels = re.findall(r'(?<![a-z])label="([^"]*)"', source.read_text())
    lines = {line.strip() for label in labels for line in label.split("\\n") if line.strip()}
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", source.with_suffix(".svg").read_text())
    text = {
        shown.replace("&#160;", " ").replace("&#45;", "-").replace("&#39;", "'").strip() for shown in drawn
    }
    assert {line.replace("  ", " ") for line in lines} - {shown.replace("  ", " ") for shown in text} == set()
    assert len(lines) > 5


CITATION = re.compile(
    r"\b(COHERENCE|COHERENCE-TRACES|DESIGN|STYLE|HOUSE|CHECKER|COMPONENTS|SPEED)\.md\b|shared/traces"
)


def test_nothing_is_cited_that_a_reader_does_not_have() -> None:
    """Papers that the design was written from are not in the repository; docs/coherence.md has the rule."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    text = [
        name
        for name in listed
        if name.endswith((".py", ".md", ".toml", ".yaml", ".lua", "Makefile", "run")) and "house/" not in name
    ]
    cited = [
        f"{name}:{number}"
        for name in text
        if (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if CITATION.search(line)
    ]
    assert cited == []
