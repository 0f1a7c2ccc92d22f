"""The command line: the table of commands, its parser, and how a command is run."""

import argparse
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.commands import audit, documents, explain, publish, serve, token
from cachesvc.commands.arguments import fail, tell_mistakes
from cachesvc.commands.cdc import command as cdc
from cachesvc.commands.cell import command as cell
from cachesvc.commands.check import command as check
from cachesvc.commands.pool import command as pool
from cachesvc.commands.report import command as report
from cachesvc.commands.size import command as size
from cachesvc.commands.top import command as top
from cachesvc.commands.topology import command as topology
from cachesvc.model.errors import ConfigError, TierError


def run(arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Runs a command and returns its exit code.

    A failure is told on stderr, in a line for each mistake. Raises `OSError` if the output cannot be
    written, and `KeyboardInterrupt` if the command does not end at Ctrl-C by itself.
    """
    options = parser(environ).parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, environ)
    except ConfigError as error:
        return tell_mistakes(error)
    except (ServerStartError, TierError) as error:
        return fail(1, str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC and not error.filename:
            raise  # of the output, whose file nobody here has opened
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        return fail(1, what)


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of the whole command line. `environ` gives some arguments their defaults."""
    whole = argparse.ArgumentParser(prog="cachesvc", description="A multi-tier cache service.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(
                name,
                help=command.purpose,
                description=command.purpose,
                epilog=f"Exit codes: {command.exit_codes}",
            ),
            environ,
        )
    return whole


class Command(NamedTuple):
    """One command of the command line."""

    purpose: str
    """One sentence for the list of commands and the command's help."""
    exit_codes: str
    add_arguments: Callable[[argparse.ArgumentParser, Mapping[str, str]], None]
    run: Callable[[argparse.Namespace, Mapping[str, str]], int]
    """Returns the exit code.

    May raise `ConfigError`, `TierError`, `ServerStartError` and `OSError`."""


COMMANDS = {
    "serve": Command(
        "Serves until Ctrl-C or SIGTERM. Without a topology, on embedded servers.",
        "0 after a stop by a signal; 1 if it cannot serve; 2 if a document is wrong.",
        serve.add_arguments,
        serve.serve,
    ),
    "check-config": Command(
        "Reads and checks the documents, and does nothing else.",
        "0 if both are right; 2 if one is wrong: each mistake has a line.",
        documents.add_arguments,
        documents.check_config,
    ),
    "token": Command(
        "Makes a bearer token for a caller, or says what one may do.",
        "0 if it is made or valid; 1 if it is not valid; 2 if an argument or the topology document is wrong.",
        token.add_arguments,
        lambda options, _: token.run(options),
    ),
    "publish": Command(
        "Announces changes on a region's queue.",
        "0 if every change was announced; 1 if the queue does not take them; 2 if a change is wrong.",
        publish.add_arguments,
        lambda options, _: publish.run(options),
    ),
    "cdc": Command(
        "Reads what PostgreSQL commits, and announces the changes on a region's queue.",
        "0 after a stop by a signal; 1 if a port or the database cannot be used; 2 if a document is wrong, or"
        " the database does not send what the templates of namespaces need.",
        cdc.add_arguments,
        lambda options, environ: cdc.run(options, environ),
    ),
    "check": Command(
        "Puts load on a deployment from outside and judges its answers.",
        "0 if every check holds; 1 if one is violated, or if too little was seen to tell;"
        " 2 if a document is wrong.",
        check.add_arguments,
        lambda options, _: check.run(options),
    ),
    "explain": Command(
        "Says why one key is answered as it is.",
        "0 if it is explained; 1 if no instance answers;"
        " 2 if there is no such namespace, or the key is out of rule.",
        explain.add_arguments,
        lambda options, _: explain.run(options),
    ),
    "audit": Command(
        "Shows what callers changed and were refused, at all instances.",
        "0 if every instance answered, or one did; 1 if none did; 2 if a document is wrong, or all refused.",
        audit.add_arguments,
        lambda options, _: audit.run(options),
    ),
    "report": Command(
        "Says what each namespace gets out of the cache.",
        "0 if every instance answered; 1 if one did not; 2 if a document is wrong.",
        report.add_arguments,
        lambda options, _: report.run(options),
    ),
    "size": Command(
        "Computes what a deployment needs, from what callers will ask.",
        "0 if it is computed; 2 if a document is wrong.",
        size.add_arguments,
        lambda options, _: size.run(options),
    ),
    "topology": Command(
        "Says what another topology document changes, and puts versions of it in force.",
        "0 if nothing changes; 1 if it is refused, a document is wrong, or no store answers;"
        " 2 if something changes.",
        topology.add_arguments,
        topology.run,
    ),
    "cell": Command(
        "Adds or drains a cell, moves a partition, or ends a move.",
        "0 if it is written; 1 if it was not wanted, or must not be; 2 if an argument or the document is"
        " wrong.",
        cell.add_arguments,
        lambda options, _: cell.run(options),
    ),
    "pool": Command(
        "Adds, replaces or removes a memcached server in the topology document.",
        "0 if it is written; 1 if it was not wanted, or must not be; 2 if an argument or the document is"
        " wrong.",
        pool.add_arguments,
        lambda options, _: pool.run(options),
    ),
    "top": Command(
        "Shows a deployment: what is wrong, slow or hot.",
        "0 if all is well, or after Ctrl-C; with --once, 1 if something is wrong; 2 if a document is wrong.",
        top.add_arguments,
        lambda options, _: top.run(options),
    ),
}
