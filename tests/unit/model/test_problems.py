"""The register of problem kinds agrees with its uses: the service's code, PROTOCOL.md, OpenAPI, and the SDK."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from cachesvc.model.problems import ProblemKind, Retry
from cachesvc.web.handlers.openapi import document

ROOT = Path(__file__).parents[3]
REGISTER = ROOT / "cachesvc/model/problems.py"
KINDS = {kind.value: kind for kind in ProblemKind}
SDKS_OWN = {"unreachable", "bad-answer", "closed", "load-cancelled", "other-loop"}
"""Types of a `CacheError` that no answer of the service carries."""


def calls_and_names(folder: str) -> Iterator[ast.AST]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        if path != REGISTER:
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def named_kinds(folder: str) -> set[str]:
    return {
        node.attr
        for node in calls_and_names(folder)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "ProblemKind"
    }


def raised_kinds() -> Counter[str]:
    """How often the service's code makes a failure of each kind, `/openapi.json` aside."""
    return Counter(
        argument.attr
        for node in calls_and_names("cachesvc")
        if isinstance(node, ast.Call)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(argument, ast.Attribute)
        and isinstance(argument.value, ast.Name)
        and argument.value.id == "ProblemKind"
        and getattr(node.func, "id", getattr(node.func, "attr", ""))
        in ("RequestError", "OriginError", "_error", "check_namespace")
    )


def test_every_kind_that_is_named_is_registered() -> None:
    assert named_kinds("cachesvc") <= ProblemKind.__members__.keys()


def test_every_registered_kind_is_made_somewhere() -> None:
    by_default = {"ORIGIN_FAILED"}  # of an OriginError
    assert raised_kinds().keys() | by_default == ProblemKind.__members__.keys()


def test_no_failure_is_made_with_a_kind_that_is_not_of_the_register() -> None:
    """Kinds are constants, so that mypy refuses an unknown one; text in their place is found here."""
    made = [
        ast.unparse(node)
        for node in calls_and_names("cachesvc")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "RequestError"
        and ast.unparse(node.args[0]) != "failure.kind"
        and not ast.unparse(node.args[0]).startswith("ProblemKind.")
    ]
    assert made == []


@pytest.mark.parametrize("kind", ProblemKind)
def test_a_kind_reads_as_one_sentence_of_advice(kind: ProblemKind) -> None:
    assert kind.name == kind.value.upper().replace("-", "_")
    assert HTTPStatus(kind.status) >= 400
    assert re.fullmatch(r"[A-Z].*\.", kind.advice), "a sentence"
    assert not kind.summary.endswith("."), "a title"
    assert (kind.status == 503) <= (kind.retry is Retry.AFTER_A_SECOND), "503 has Retry-After"


def table() -> list[str]:
    """The rows of the table in PROTOCOL.md, by status."""
    return [
        f"| `{kind.value}` | {kind.status} | {kind.retry.value} | {kind.advice} |"
        for kind in sorted(ProblemKind, key=lambda kind: (kind.status, kind.value))
    ]


def test_the_table_of_the_protocol_is_the_register() -> None:
    text = (ROOT / "clients/PROTOCOL.md").read_text(encoding="utf-8")
    _, _, section = text.partition("\n## Errors\n")
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == table(), "write it anew:\n" + "\n".join(table())


def test_openapi_describes_every_kind() -> None:
    described = document()["x-problem-kinds"]
    assert isinstance(described, dict)
    assert [(name, told["status"], told["retryable"]) for name, told in described.items()] == [
        (kind.value, kind.status, kind.retryable) for kind in ProblemKind
    ]


def sdk_refusals() -> Iterator[tuple[str, int, bool]]:
    """Kind, status and `retryable` of every problem that the SDK's stand-in of the service answers."""
    for node in calls_and_names("clients/python/src"):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused":
            status, kind, retryable = (
                constant(node.args[0]),
                constant(node.args[1]),
                next((constant(word.value) for word in node.keywords if word.arg == "retryable"), False),
            )
            if isinstance(status, int) and isinstance(kind, str):
                yield kind, status, retryable is True


def constant(node: ast.AST) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def sdk_types() -> Iterator[str]:
    """Every type that the SDK gives its own errors, or compares a type with."""
    for node in calls_and_names("clients/python/src"):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "CacheError":
            sought = node.args[:1]
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".type"):
            sought = [part for one in node.comparators for part in getattr(one, "elts", [one])]
        else:
            continue
        yield from (
            part.value for part in sought if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )


def test_the_sdk_knows_kinds_by_the_registers_status_and_retryable() -> None:
    found = sorted(set(sdk_refusals()))
    assert len(found) > 20
    assert found == [(kind, KINDS[kind].status, KINDS[kind].retryable) for kind, _, _ in found]


def test_the_sdk_compares_with_registered_kinds_or_its_own() -> None:
    found = set(sdk_types())
    assert {"cache-miss", "known-absent", "deadline"} <= found
    assert found <= KINDS.keys() | SDKS_OWN
