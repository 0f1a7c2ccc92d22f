"""No module of the service or of the SDK imports itself by a detour.

Every written import is an arrow, as a reader has to follow all of them: at the top, inside a
function, and under `TYPE_CHECKING`. That Python runs the `__init__.py` of each package on the way
to a module is no arrow.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"cachesvc": ROOT, "cachesvc_client": ROOT / "clients/python/src"}


def modules_of(source: Path, package: str) -> dict[str, Path]:
    """Dotted name → file, of a package and all that is below it."""
    files = sorted((source / package).rglob("*.py"))
    return {
        ".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def arrows_of(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module → the modules of the same tree that its text imports."""
    return {name: set(_imported(name, file, modules)) - {name} for name, file in modules.items()}


def _imported(name: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            package = _absolute(name, file, node)
            for alias in node.names:
                inner = f"{package}.{alias.name}"
                yield from (one for one in (inner if inner in modules else package,) if one in modules)


def _absolute(name: str, file: Path, node: ast.ImportFrom) -> str:
    """The module that `from … import` names, with the dots of a relative import resolved."""
    if not node.level:
        return node.module or ""
    up = node.level - (file.name == "__init__.py")
    package = name.rsplit(".", up)[0] if up else name
    return f"{package}.{node.module}" if node.module else package


def circle_in(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle in the order of their imports; empty if there is none.

    The first module stands at the end again.
    """
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("package", DISTRIBUTIONS)
def test_imports_have_no_circle(package: str) -> None:
    modules = modules_of(DISTRIBUTIONS[package], package)
    assert len(modules) > 30
    assert " → ".join(circle_in(arrows_of(modules))) == ""


CIRCLES = {
    "at the top": ("from made.b import B", "import made.a"),
    "in a function": ("def f():\n    from made import b", "from made.a import A"),
    "for types only": ("if TYPE_CHECKING:\n    from made.b import B", "from made import a"),
    "relative": ("from .b import B", "from . import a"),
}


@pytest.mark.parametrize("texts", CIRCLES.values(), ids=CIRCLES.keys())
def test_a_circle_is_found(tmp_path: Path, texts: tuple[str, str]) -> None:
    made = _made(
        tmp_path, {"__init__": "from made.c import C", "a": texts[0], "b": texts[1], "c": "import made.a"}
    )
    circle = circle_in(arrows_of(made))
    assert circle[0] == circle[-1]
    assert set(circle) == {"made.a", "made.b"}


def test_arrows_that_run_down_are_no_circle(tmp_path: Path) -> None:
    made = _made(
        tmp_path,
        {"__init__": "from made.a import A", "a": "from made import b, c", "b": "from .c import C", "c": ""},
    )
    assert arrows_of(made) == {
        "made": {"made.a"},
        "made.a": {"made.b", "made.c"},
        "made.b": {"made.c"},
        "made.c": set(),
    }
    assert circle_in(arrows_of(made)) == []


def _made(source: Path, texts: Mapping[str, str]) -> dict[str, Path]:
    (source / "made").mkdir()
    for name, text in texts.items():
        (source / "made" / f"{name}.py").write_text(text)
    return modules_of(source, "made")
