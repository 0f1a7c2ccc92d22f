"""`cachesvc topology get | put | history | rollback`: versions of the document.

A version is put in place of the one that its author has seen. `put` sets the document's `version`
to the next number; a file with the number in force, or the next, was made from that version, and
every other one is refused. A rollback is a new version with an old text: numbers never go back.
"""

import argparse
import asyncio
import getpass
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from cachesvc.app.topology_store import keys_of, of_queues, opened
from cachesvc.changes.document.contract import ConflictError, Document, DocumentStore, Version
from cachesvc.commands import documents
from cachesvc.commands.arguments import fail, utf8
from cachesvc.commands.documents import given_topology
from cachesvc.commands.topology.difference import Difference, difference
from cachesvc.commands.topology.page import page
from cachesvc.config.service import Service, load_service, topology_of
from cachesvc.config.topology import Topology
from cachesvc.config.topology_version import version_of, with_version
from cachesvc.model.errors import ConfigError
from cachesvc.model.printable import printable
from cachesvc.tiers.tls import Certificates

T = TypeVar("T")

DONE, REFUSED, CHANGED = 0, 1, 2


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", environ: Mapping[str, str]
) -> None:
    """Adds the four commands."""
    get = _added(commands, "get", "Prints the document that is in force in the store.", environ)
    get.add_argument("number", nargs="?", type=int, metavar="N", help="An older version, from the history.")
    put = _added(commands, "put", "Puts FILE in force, as the next version.", environ)
    put.add_argument("file", type=Path, metavar="FILE", help="The document, made from the one in force.")
    _add_change(put, required=True)
    _added(commands, "history", "Lists the versions that the store keeps.", environ)
    rollback = _added(commands, "rollback", "Puts an older text in force, as the next version.", environ)
    rollback.add_argument("number", type=int, metavar="N", help="The version whose text it is.")
    _add_change(rollback, required=False)


def _added(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    purpose: str,
    environ: Mapping[str, str],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=purpose, description=purpose)
    documents.add_arguments(parser, environ)
    parser.add_argument(
        "--store",
        default="",
        metavar="PLACE",
        help="The place of the document, as `document.store` has it; before that of the service document.",
    )
    parser.add_argument("--json", action="store_true", help="Prints the answer in JSON.")
    return parser


def _add_change(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--reason",
        required=required,
        type=utf8,
        default="",
        metavar="TEXT",
        help="A sentence for the history: why it changes.",
    )
    parser.add_argument(
        "--author",
        type=utf8,
        default="",
        metavar="NAME",
        help="Who changes it. Default: the user and host of this command.",
    )
    parser.add_argument("--yes", action="store_true", help="Puts it there without asking.")


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Runs a command and returns the exit code. Raises `ConfigError` and `TierError`."""
    if options.topology is None:
        raise ConfigError("--topology", "is missing: it names the file, or the seed that names the queues")
    if options.store:
        environ = {**environ, "CACHESVC_DOCUMENT_STORE": options.store}
    service, seed = load_service(options.config, environ), given_topology(options.topology)
    place = _Place(service, seed, options.topology, Certificates(service))
    return COMMANDS[options.what](place, options)


class _Place(NamedTuple):
    """The store of a deployment, and the means by which it is reached."""

    service: Service
    seed: Topology
    file: Path
    certificates: Certificates

    def opened(self, *documents: Topology) -> DocumentStore:
        """Returns the store; the queues of all these documents are places of it."""
        if self.service.document.store != "queue" or not documents:
            return opened(self.service, self.seed, self.file, self.certificates)
        urls: dict[str, str] = {}
        for topology in (self.seed, *documents):
            for name, region in topology.regions.items():
                if region.queue not in urls.values():
                    urls[name if name not in urls else f"{name}, version {topology.version}"] = region.queue
        return of_queues(urls, self.service, self.certificates)

    def load(self, number: int | None = None) -> Document | None:
        """Returns a version of the document. Raises `TierError`."""
        return _answer_of(self.opened(), lambda store: store.load(number))


class Put(msgspec.Struct, frozen=True):
    """The answer of `put` and `rollback` in JSON."""

    difference: Difference
    put: Version | None = None
    """None if nothing was put."""
    missed: Sequence[str] = ()
    """The places that were out of reach. Instances bring the version there."""


def get(place: _Place, options: argparse.Namespace) -> int:
    """Prints a version's text, or all of it in JSON."""
    found = place.load(options.number)
    if found is None:
        what = "no document" if options.number is None else f"no version {options.number}"
        return fail(REFUSED, f"there is {what} in the store ({place.service.document.store})")
    if options.json:
        _print_json(found)
    else:
        sys.stdout.write(found.text if found.text.endswith("\n") else f"{found.text}\n")
    return DONE


def history(place: _Place, options: argparse.Namespace) -> int:
    """Prints the versions, the newest first."""
    found = _answer_of(place.opened(), lambda store: store.history())
    if options.json:
        _print_json(found)
        return DONE
    if not found:
        print("no version was put there yet")
    for one in found:
        line = f"{one.number:>6}  {_time(one)}  {one.hash[:12]}  {one.author or '–':<20}  {one.reason}"
        print(printable(line.rstrip()))
    return DONE


def put(place: _Place, options: argparse.Namespace) -> int:
    """Puts the text of a file in force."""
    try:
        text = options.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(str(options.file), f"cannot be read: {why}") from None
    topology_of(text, str(options.file))
    seen, given = place.load(), version_of(text)
    known = seen.version.number if seen is not None else place.seed.version
    if given not in (known, known + 1):
        force = _told(seen.version) if seen is not None else f"the seed's version {known}"
        return fail(
            REFUSED,
            f"{options.file}: $.version: is {given}, and {force} is in force: make the change in that one"
            f"{' (cachesvc topology get)' if seen is not None else ''}",
        )
    return _change(place, seen, text, options, options.reason)


def rollback(place: _Place, options: argparse.Namespace) -> int:
    """Puts the text of an older version in force."""
    seen, old = place.load(), place.load(options.number)
    if seen is None or old is None:
        return fail(REFUSED, f"there is no version {options.number} in the store's history")
    if old.version == seen.version:
        return fail(REFUSED, f"version {options.number} is in force")
    reason = options.reason or f"rollback to version {options.number}"
    return _change(place, seen, old.text, options, reason)


COMMANDS = {"get": get, "put": put, "history": history, "rollback": rollback}


def _change(place: _Place, seen: Document | None, text: str, options: argparse.Namespace, reason: str) -> int:
    """Shows what the text changes, asks, and puts it there as the next version.

    An empty store takes the seed's own content under the number that it has.
    """
    before = topology_of(seen.text, str(seen.version)) if seen is not None else place.seed
    after, number = topology_of(text, "the new document"), before.version + 1
    is_same = replace(after, version=before.version) == before
    if is_same and seen is None:
        number = before.version
    text, after = with_version(text, number), replace(after, version=number)
    found = difference(before, after)
    if all(change.when == "at once" for change in found.changes) and before.former == after.former:
        found = replace(found, steps=())  # the store is the step that is left
    if is_same and seen is not None:
        return _ended(options, Put(found), DONE, "nothing changes")
    if not options.json and (shown := page(found)):
        print(shown.strip("\n"), flush=True)
    if found.refused:
        return _ended(options, Put(found), REFUSED)
    if not (options.yes or _is_agreed(number)):
        return _ended(options, Put(found), REFUSED, "nothing was put")
    author = options.author or f"{getpass.getuser()}@{socket.gethostname()}"
    document = Document.of(
        text,
        number,
        author=author,
        at_us=time.time_ns() // 1000,
        reason=reason,
        keys=keys_of(place.service),
    )
    expected = seen.version if seen is not None else None
    try:
        missed = _answer_of(
            place.opened(before, after), lambda store: store.compare_and_set(document, expected)
        )
    except ConflictError as conflict:
        now = _told(conflict.found) if conflict.found else "no document"
        return fail(REFUSED, f"{conflict.where}: {now} came meanwhile; nothing was put there")
    for one in missed:
        fail(0, f"{one}: instances that reach another place bring version {number} there")
    return _ended(
        options,
        Put(found, document.version, list(map(str, missed))),
        CHANGED,
        f"version {number} is in force",
    )


def _answer_of(store: DocumentStore, question: Callable[[DocumentStore], Awaitable[T]]) -> T:
    """Returns the answer of a store, which is closed. Raises what the question raises."""

    async def asked() -> T:
        try:
            return await question(store)
        finally:
            await store.close()

    return asyncio.run(asked())


def _is_agreed(number: int) -> bool:
    """Asks on the terminal. Raises `ConfigError` if nobody can answer."""
    if not sys.stdin.isatty():
        raise ConfigError("--yes", "is missing: there is no terminal to ask at")
    return input(f"\nPut this in force as version {number}? [y/N] ").strip().lower() in ("y", "yes")


def _ended(options: argparse.Namespace, answer: Put, code: int, said: str = "") -> int:
    if options.json:
        _print_json(answer)
    elif said:
        print(said)
    return code


def _print_json(answer: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer)).decode() + "\n")


def _told(version: Version) -> str:
    by = f" of {version.author}" if version.author else ""
    reason = f": {version.reason}" if version.reason else ""
    return f"version {version.number}{by} ({_time(version)}{reason})"


def _time(version: Version) -> str:
    return datetime.fromtimestamp(version.at_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
