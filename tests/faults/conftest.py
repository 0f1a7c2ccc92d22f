"""The arena that all drills share, and the table that is printed at the end."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.faults import results
from tests.faults.arena import Arena, arena


@pytest.fixture(scope="session")
def shared_arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("arena")) as running:
        yield running


@pytest.fixture
async def field(shared_arena: Arena) -> Arena:
    """The arena, repaired and current at the start of each drill."""
    await shared_arena.restore()
    return shared_arena


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes the rows of the drills that a worker of pytest-xdist has run (`-n 2`)."""
    results.ROWS += msgspec.convert(getattr(node, "workeroutput", {}).get("drills", []), list[results.Row])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["drills"] = msgspec.to_builtins(results.ROWS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not results.ROWS:
        return
    table = results.report(results.ROWS)
    (results.DIRECTORY / "results.md").write_text(f"{table}\n")
    terminalreporter.section("fault drills")
    terminalreporter.write_line(table)
