"""A change of the production code inside this process.

Some text of one function or one Lua script is exchanged for other text. An edit names in one line
the text that it takes out. So it goes with the code when the code around that text is rearranged,
and it fails loudly (`EditError`) once its text is gone, instead of silently testing nothing. Only
cachesvc and the standard library are imported here, because the fault drills use it in real
instance processes.
"""

import ast
import hashlib
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

Undo = Callable[[], None]


class EditError(AssertionError):
    """The text to take out is not there, or there more than once.

    The protection has moved, and the edit must follow it.
    """


class Edit(Protocol):
    """One change of the code."""

    def apply(self) -> Undo:
        """Makes the change; returns a function that undoes it."""
        ...


@dataclass(frozen=True)
class InPython:
    """Exchanges text in the function or method at `where` (`package.module:Class.method`).

    The function's own indentation is taken off before.
    """

    where: str
    old: str
    new: str

    def apply(self) -> Undo:
        """Exchanges the function for every look-up from now on.

        Bound methods that were taken before stay as they were.
        """
        module_name, _, path = self.where.partition(":")
        module = importlib.import_module(module_name)
        *outer, name = path.split(".")
        owner: Any = module
        for part in outer:
            owner = getattr(owner, part)
        original = vars(owner)[name]
        source = _exchanged(_source_of(module, path.split(".")), self.old, self.new, self.where)
        made: dict[str, Any] = {}
        exec(compile(source, self.where, "exec"), vars(module), made)  # noqa: S102  the source is our own
        # A module that imported a function by its name has a reference of its own.
        users = [owner, *(user for user in _loaded() if vars(user).get(name) is original)]
        for user in users:
            setattr(user, name, made[name])

        def undo() -> None:
            for user in users:
                setattr(user, name, original)

        return undo


@dataclass(frozen=True)
class InCellScript:
    """Exchanges text in a script of the home cells (`cachesvc.tiers.l3.script`).

    `script` is the name of the script's constant; prelude and body are one text.
    """

    script: str
    old: str
    new: str

    def apply(self) -> Undo:
        script = getattr(importlib.import_module("cachesvc.tiers.l3.script"), self.script)
        source, sha = script.source, script.sha
        script.source = _exchanged(source.decode(), self.old, self.new, f"the Lua of {self.script}").encode()
        script.sha = hashlib.sha1(script.source, usedforsecurity=False).hexdigest().encode()

        def undo() -> None:
            script.source, script.sha = source, sha

        return undo


@dataclass(frozen=True)
class InQueueScript:
    """Exchanges text in a script of the queues (`cachesvc.changes.redis.server`), by its name.

    It takes effect for servers that are connected to from now on.
    """

    script: str
    old: str
    new: str

    def apply(self) -> Undo:
        scripts: dict[str, bytes] = vars(importlib.import_module("cachesvc.changes.redis.server"))["_LUA"]
        source = scripts[self.script]
        scripts[self.script] = _exchanged(
            source.decode(), self.old, self.new, f"the Lua of {self.script}"
        ).encode()
        return lambda: scripts.update({self.script: source})


def _loaded() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("cachesvc.")]


def _source_of(module: ModuleType, path: list[str]) -> str:
    """Returns the source of a function, with its decorators.

    It is found by name, not by line number: the file may have changed since it was imported.
    """
    text = inspect.getsource(module)
    node: Any = ast.parse(text)
    for part in path:
        node = next(inner for inner in node.body if getattr(inner, "name", "") == part)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno]))


def _exchanged(source: str, old: str, new: str, where: str) -> str:
    """`source` with `new` for `old`, however the formatter has broken its lines."""
    words = re.findall(r"\w+|\S", old)
    text = r"\s*".join(rf",?\s*{re.escape(word)}" if word in ")]}" else re.escape(word) for word in words)
    found = re.findall(text, source)
    if len(found) != 1:
        raise EditError(f"{where}: the text to take out is there {len(found)} times, not once: {old!r}")
    before, _, after = source.partition(found[0])
    edges = [piece.group() if piece else "" for piece in (re.match(r"\s*", old), re.search(r"\s*\Z", old))]
    return f"{before.removesuffix(edges[0])}{new}{after.removeprefix(edges[1])}"
