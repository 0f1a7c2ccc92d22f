"""The language of docstrings and comments, and the shape of the house, as far as a program can tell.

A docstring is a sentence about the thing, whose subject is the thing. Its first line is short enough for an editor's tooltip, its
text for a split window.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = ROOT / "clients" / "python" / "src" / "cachesvc_client"
BASES = (ROOT / "cachesvc", SDK, ROOT / "loadtests")

FIRST_LINE, TEXT, LINE = 88, 100, 110
"""Columns: of a docstring's first line, of its other lines and of comments (both without their indentation), of code."""
RIDDLES = re.compile(r"(Of|What|Who|Whose)\b")
"""Beginnings whose subject comes later, or never."""


def files(base: Path) -> list[Path]:
    return sorted(base.rglob("*.py"))


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Docstrings of modules, classes and functions, and the strings below attributes, with their first line."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def faults(text: str) -> list[str]:
    found = []
    for number, docstring in docstrings(ast.parse(text)):
        first, *rest = docstring.split("\n")
        if len(first) > FIRST_LINE:
            found.append(f"{number}: the first line has {len(first)} columns")
        if RIDDLES.match(first):
            found.append(f"{number}: begins with {first.split()[0]!r}")
        found += [
            f"{number + i}: {len(line.strip())} columns of text"
            for i, line in enumerate(rest, 1)
            if len(line.strip()) > TEXT
        ]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and len(token.string.lstrip("# ")) > TEXT:
            found.append(f"{token.start[0]}: a comment of {len(token.string)} columns")
    return found


@pytest.mark.parametrize("base", BASES, ids=[base.name for base in BASES])
def test_docstrings_and_comments_keep_the_rule_of_language(base: Path) -> None:
    found = [
        f"{file.relative_to(ROOT)}:{fault}" for file in files(base) for fault in faults(file.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"""Of one server."""\n', "1: begins with 'Of'"),
        ('class A:\n    b = 1\n    """Who did it."""\n', "3: begins with 'Who'"),
        (f'"""{"a " * 50}"""\n', "1: the first line has 100 columns"),
        (f'"""Short.\n\n{"a " * 51}\n"""\n', "3: 101 columns of text"),
        (f"x = 1  # {'a' * 101}\n", "1: a comment of 103 columns"),
    ],
)
def test_a_fault_is_found(text: str, fault: str) -> None:
    assert faults(text) == [fault]


@pytest.mark.parametrize("base", BASES, ids=[base.name for base in BASES])
def test_long_lines_of_code_are_rare(base: Path) -> None:
    lines = [line for file in files(base) for line in file.read_text().splitlines()]
    assert sum(len(line) > LINE for line in lines) <= len(lines) / 100


def test_the_service_is_eleven_packages_and_its_docstring_names_each() -> None:
    root = ROOT / "cachesvc"
    packages = {path.name for path in root.iterdir() if (path / "__init__.py").is_file()}
    picture = ast.get_docstring(ast.parse((root / "__init__.py").read_text())) or ""
    described = set(re.findall(r"^ +(?:cli → )?(\w+)  +\S", picture, re.MULTILINE))
    assert packages == described
    assert len(packages) == 11
    entries = {path.name for path in root.iterdir() if path.name != "__pycache__"}
    assert entries - packages == {"__init__.py", "__main__.py", "cli.py", "py.typed"}


def test_every_package_says_what_lives_there() -> None:
    packages = [file for base in BASES[:2] for file in base.rglob("__init__.py")]
    silent = [
        str(file.relative_to(ROOT)) for file in packages if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []
