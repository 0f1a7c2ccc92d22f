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
    """Runs a snippet, in a thread if it does not await.

    Such a snippet may block or run a loop of its own, and the service of these tests runs on the
    loop of the test.
    """
    if code.co_flags & CO_COROUTINE:
        await eval(code, names)  # noqa: S307  our own page
    else:
        await asyncio.to_thread(exec, code, names)


@pytest.mark.parametrize("page", PAGES)
async def test_every_snippet_of_a_page_runs(
    page: str, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for nth, text in enumerate(snippets(page)):
        where = f"{page}#{nth + 1}"
        code = compile(
            text.replace(SHOWN_URL, service.url), where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        await run(code, names)
        if nth == 0:  # a whole program, that has closed its cache; the others are pieces of it
            await names["cache"].__aenter__()
    await names["cache"].aclose()
    assert capsys.readouterr().out.startswith("Ada\nGrace\n")
