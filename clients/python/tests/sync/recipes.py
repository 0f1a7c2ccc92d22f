"""The snippets of docs/recipes.md, by the title above them."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[4] / "docs/recipes.md"
SHOWN_URL = "http://127.0.0.1:8080"


def snippets(title: str, url: str, **replaced: str) -> list[str]:
    """The Python snippets beneath a title, with a service at `url`."""
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found
    texts = [text.replace(SHOWN_URL, url) for text in found]
    for shown, instead in replaced.items():
        texts = [text.replace(shown, instead) for text in texts]
    return texts


def recipe(title: str, url: str, **replaced: str) -> dict[str, Any]:
    """Runs the first snippet beneath a title, and returns its names."""
    names: dict[str, Any] = {"__name__": "recipe"}
    text = snippets(title, url, **replaced)[0]
    exec(compile(text, f"{PAGE.name}#{title}", "exec"), names)  # noqa: S102  our own page
    return names
