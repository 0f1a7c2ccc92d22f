"""Commands that change the topology document in a file: changes are shown, then written.

The file is replaced in one step, and only if it is as it was when it was read.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cachesvc.commands.arguments import fail
from cachesvc.commands.topology.difference import Difference, difference
from cachesvc.commands.topology.page import page
from cachesvc.config.service import load_topology, topology_of
from cachesvc.config.topology import Topology
from cachesvc.model.errors import ConfigError

WRITTEN, NOT_WRITTEN = 0, 1


def edit_file(given: Path | None, change: Callable[[str, Topology], str], *, is_wanted: bool) -> int:
    """Replaces a document by what `change` makes of its text; returns the exit code.

    1 if the change is refused, or not wanted. Unless `is_wanted`, that is asked on the terminal.
    Raises `ConfigError` and `OSError`; then nothing is written.
    """
    if given is None:
        raise ConfigError("--topology", "is missing: name the topology document")
    path = given.resolve()  # a link stays one
    before = load_topology(path)
    text = path.read_text(encoding="utf-8")
    changed = change(text, before)
    found = difference(before, topology_of(changed, str(given)))
    print(page(found).strip("\n"))
    if found.refused:
        return NOT_WRITTEN
    if not (is_wanted or _asked(found)):
        return fail(NOT_WRITTEN, "nothing was changed")
    if path.read_text(encoding="utf-8") != text:
        return fail(NOT_WRITTEN, f"{given} has been changed meanwhile: ask again")
    _replace(path, changed)
    print(f"\n{given} is version {found.version[1]} now")
    return WRITTEN


def _asked(found: Difference) -> bool:
    """Asks on the terminal; without one, nothing is wanted."""
    if not sys.stdin.isatty():
        print("\nno terminal to ask: write --yes")
        return False
    return input(f"\nwrite version {found.version[1]}? [y/N] ").strip().lower() in ("y", "yes")


def _replace(path: Path, text: str) -> None:
    """Replaces the file by one with this text and the same rights, in one step."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
