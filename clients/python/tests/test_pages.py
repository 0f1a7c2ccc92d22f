"""The pages for product teams: every snippet runs, in order, as a reader would run it."""

import ast
import asyncio
import re
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from clients.python.tests.fake_service import FakeService

ROOT = Path(__file__).parents[3]
PAGES = ["docs/sdk.md", "clients/python/README.md"]
SHOWN_URL = "http://127.0.0.1:8080"


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


async def run(code: CodeType, names: dict[str, Any]) -> None:
    """A whole program in a thread, as it runs a loop of its own; else a piece of one, which may await."""
    if "run" in code.co_names and "asyncio" in code.co_names:
        await asyncio.to_thread(exec, code, names)
    elif code.co_flags & CO_COROUTINE:
        await eval(code, names)  # noqa: S307  the same
    else:
        exec(code, names)  # noqa: S102  the same


@pytest.mark.parametrize("page", PAGES)
async def test_every_snippet_of_a_page_runs(page: str, service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    first, *rest = snippets(page)
    for nth, text in enumerate([first, *rest]):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(text.replace(SHOWN_URL, service.url), f"{page}#{nth + 1}", "exec", flags=flags)
        if nth == 0:
            await run(code, names)
            await names["cache"].__aenter__()
        else:
            await run(code, names)
    await names["cache"].aclose()
    assert capsys.readouterr().out.startswith("Ada\nGrace\n")
