"""Generates the sync modules that are the text of their twins in `aio` without `await`.

    python clients/python/unasync.py            writes them
    python clients/python/unasync.py --check    exits with 1 and names those that differ

To change one of them: change its twin in `aio`, and run this. The other modules of `sync` (batches,
flights, loads, the transport) are written by hand, as threads wait for each other in another way.

What is done to the text of a twin, in this order:

1. Lines that end with `# aio only` are left out.
2. Its own `WORDING` replaces what has to be said, or built, in another way for threads.
3. `RULES` replace what asyncio needs: `async def`, `await`, `Awaitable[…]`, the clock of the loop.
4. Ruff takes out the imports that are not used any more, sorts the others, and breaks the lines.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, run
from typing import TypeAlias

PACKAGE = Path(__file__).parent / "src/cachesvc_client"
COMMAND = "python clients/python/unasync.py"

_AIO_ONLY = re.compile(r"^.*  # aio only\n", re.MULTILINE)
_INSIDE = r"((?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*)"
"""The text between two brackets, with up to two levels of brackets inside."""

RULES: Sequence[tuple[str, str]] = (
    (r"cachesvc_client\.aio\b", "cachesvc_client.sync"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait asyncio\.gather\(\*map\(", "list(map("),  # one after the other
    (r"\bawait ", ""),
    (rf"\bAwaitable\[{_INSIDE}\]", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\basyncio\.get_running_loop\(\)\.time\(\)", "time.monotonic()"),
    (r"\bthe loop's clock\b", "`time.monotonic`"),
    (r"^import asyncio\n", "import time\n"),
)
"""Regular expressions and what replaces their matches."""

Wording: TypeAlias = Sequence[tuple[str, str]]

WORDING: Mapping[str, Wording] = {
    "cache": (
        (
            """\
    Its first call opens it, until the event loop ends; a block, `async with cache`, opens it until
    the block ends. Blocks may be nested: the outermost one counts. Closing ends the loads that
    still run (their callers get a `CacheError`) and waits for the requests under way.

    It is used on one event loop at a time. On another one it starts anew, once the first has
    stopped: `asyncio.run` after `asyncio.run`, a loop for each test, a forked child.
""",
            """\
    Its first call opens it, until `close`; a block, `with cache`, opens it until the block ends.
    Blocks may be nested, also over several threads: the end of the last one closes.

    To be used by any number of threads, or of greenlets where gevent has patched `threading`,
    `socket` and `time`, and on both sides of a fork: the child makes connections of its own, and
    honours what was written before the fork. Calls that are under way when the client is closed end
    with their answers or a `CacheError`.
""",
        ),
        (
            """\
an `aiohttp.ClientSession` of yours, which stays open. Give it a
          `CleanConnector` (`aio/clean_connector.py`): aiohttp's own connectors take bytes that came
          unasked for the next answer.""",
            "a `urllib3.PoolManager` of yours, which stays open; renew it after a fork.",
        ),
        ("batches read; the client then follows the", "batches read; a thread then follows the"),
        (
            "for the task that enters the block, and for tasks that are started in it.",
            "on the thread or greenlet that enters the block.",
        ),
        ("requests.own_writes import OwnWrites, pairs_of", "requests.own_writes import pairs_of"),
        (
            "from cachesvc_client.aio.on_commit",
            "from cachesvc_client.sync.own_writes import SharedOwnWrites\nfrom cachesvc_client.aio.on_commit",
        ),
        (" OwnWrites(", " SharedOwnWrites("),
        ("Feeding(self._near, feed, self._transport)", "Feeding(self._near, feed, self._bearer, tls)"),
        (
            "a function that returns\n          the token, async or not. If",
            "a function that returns\n          the token. If",
        ),
        ("OnCommit(self._life, self._resending, self._tasks)", "OnCommit(self._life, self._resending)"),
        ("Releases(self._tasks)", "Releases()"),
        (
            "self._feeding, self._tasks, self._loads, self._resending)",
            "self._feeding, self._releases, self._resending, self._timeout)",
        ),
    ),
    "cached": (("check_awaitable", "check_value"),),
    "calls": (
        (
            """\
        The service may be late with its answer without the connection being given up: those who wait
        are answered at their deadlines by the slow lane.
""",
            """\
        The connection is given up at the deadline: the caller that sends this waits for it.
""",
        ),
        ("deadline + SLOW_TURN, turn", "deadline, turn"),
        ("  # nearly always; this spares a task", "  # nearly always"),
    ),
    "intake": (),
    "namespace": (
        (
            """\
    A cancelled read has no effect; a cancelled write may or may not have happened. Neither touches
    what other callers asked for at the same time.
""",
            """\
    May be used by any number of threads, or of greenlets where gevent has patched `threading`,
    `socket` and `time`. Calls with equal timeouts share requests: give the usual timeout to the
    namespace. A call that is torn out (`gevent.Timeout`, `KeyboardInterrupt`) does not touch what
    other callers asked for; a write that is torn out may or may not have happened.
""",
        ),
        ("Calls made at the same time share a request.", "Calls of several threads share a request."),
        ("are asked at\n        the same time.", "are asked one\n        after the other."),
        (
            """\
        `timeout` bounds this caller's wait and not the load, which has the cache's `load_timeout`.
""",
            """\
        The loader runs in the call of one of its callers, and the others wait for it. It cannot be
        stopped: `timeout` bounds the wait for another caller's load, and `ctx.deadline` tells the
        loader when the cache's `load_timeout` is over. A stale value is refreshed by the call that
        got its lease; if the loader fails, the stale value is returned.
""",
        ),
        ("loaded by `await loader(key)`", "loaded by `loader(key)`"),
        ("Returns a decorator: an async function", "Returns a decorator: a function"),
        (
            "            self._puts,\n            self._intakes.give_back,\n",
            "            self._puts,\n            self._intakes.lease_all,\n            self._intakes.put_all,\n"
            "            self._intakes.give_back,\n",
        ),
        (
            """A key that another process is loading
        is waited for; if that load fails, it has a call of the loader with such keys only.""",
            """Keys that others are loading are
        waited for, one after the other; a key whose load fails has a loader call for itself.""",
        ),
        ("`await loader(keys)` returns", "`loader(keys)` returns"),
        (
            "Makes the intakes and flights; the async flavour does so for each event loop.",
            "Makes the intakes and flights.",
        ),
    ),
    "on_commit": (
        (
            """\
The block of the cache is the outer one: it ends after the commit. If it is left by an exception (a
cancellation as well), nothing was committed and nothing is sent. Otherwise everything is sent, even
if the caller is cancelled by then: the change has happened.
""",
            """\
The block of the cache is the outer one: it ends after the commit. If it is left by an exception,
nothing was committed and nothing is sent.
""",
        ),
        ("The invalidations of one transaction;", "The invalidations of one transaction on one thread;"),
        (
            "(self, life: Lifecycle, resending: Resending, tasks: Tasks)",
            "(self, life: Lifecycle, resending: Resending)",
        ),
        (
            'self._tasks.finished(self._send_all(), name="cache invalidations of a transaction")',
            "self._send_all()",
        ),
        ("a caller that is torn out of this can", "a caller that is torn out of this (`gevent.Timeout`) can"),
    ),
}
"""Module → pieces of its async text, each of which must occur, and what replaces them."""


def generated(module: str) -> str:
    """The text of a sync module.

    Raises `ValueError` for a piece of `WORDING` that does not occur in the twin.
    """
    text = _AIO_ONLY.sub("", (PACKAGE / "aio" / f"{module}.py").read_text())
    for said, instead in WORDING[module]:
        if said not in text:
            raise ValueError(f"WORDING of {module}: aio/{module}.py does not say {said!r} any more")
        text = text.replace(said, instead)
    for pattern, replacement in RULES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    note = f"# Generated from aio/{module}.py by `{COMMAND}`: change that, and run this.\n"
    return _tidied(note + text, PACKAGE / "sync" / f"{module}.py")


def _tidied(text: str, path: Path) -> str:
    """The text as ruff would leave it in a file at this path, whose settings it finds."""
    named = ["--quiet", "--no-cache", "--stdin-filename", str(path), "-"]
    sorted_ = _ruff(["check", "--select", "F401,I001", "--fix-only", *named], text)
    return _ruff(["format", *named], sorted_)


def _ruff(arguments: Sequence[str], text: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments]
    return run(command, input=text, text=True, check=True, stdout=PIPE).stdout  # noqa: S603  ruff itself


def main(arguments: Sequence[str]) -> int:
    differing = [
        path
        for module in WORDING
        if not (path := PACKAGE / "sync" / f"{module}.py").exists() or path.read_text() != generated(module)
    ]
    for path in differing:
        if "--check" in arguments:
            print(f"{path.relative_to(PACKAGE.parent.parent)} differs from its twin in aio: run {COMMAND}")
        else:
            path.write_text(generated(path.stem))
            print(f"wrote {path.relative_to(PACKAGE.parent.parent)}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
