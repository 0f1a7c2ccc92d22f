"""The commands: `serve`, `check-config`, `publish`, `check`, `explain` and `top`.

Exit codes: 0 done, or stopped by a signal; 1 it could not run (a port in use, a server that does not start); 2 the command
line or a configuration document is wrong. Messages go to stderr, and never as a traceback for what a person can set right.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.commands import explain, publish
from cachesvc.commands.check import command as check
from cachesvc.commands.documents import _documents, _fail, check_config
from cachesvc.commands.serve import serve
from cachesvc.commands.top import command as top
from cachesvc.model.errors import ConfigError, TierError


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run a command; its exit code. `arguments` without the program's name."""
    options = _parser(environ).parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, environ)
    except ConfigError as error:
        return _fail(2, str(error))
    except (ServerStartError, TierError) as error:
        return _fail(1, str(error))
    except KeyboardInterrupt:
        return 0


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cachesvc", description="A multi-tier cache service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, command in COMMANDS.items():
        command.add_arguments(
            commands.add_parser(name, help=command.purpose, description=command.purpose), environ
        )
    return parser


class Command(NamedTuple):
    purpose: str
    add_arguments: Callable[[argparse.ArgumentParser, Mapping[str, str]], None]
    run: Callable[[argparse.Namespace, Mapping[str, str]], int]


COMMANDS = {
    "serve": Command("serve until Ctrl-C; without a topology, on embedded servers", _documents, serve),
    "check-config": Command("read and check the documents, and do nothing else", _documents, check_config),
    "publish": Command(
        "announce changes on a region's queue", publish.add_arguments, lambda options, _: publish.run(options)
    ),
    "check": Command(
        "load a deployment from outside and judge what it answers",
        lambda parser, _: check.add_arguments(parser),
        lambda options, _: check.run(options),
    ),
    "explain": Command(
        "say why one key is answered as it is", explain.add_arguments, lambda options, _: explain.run(options)
    ),
    "top": Command(
        "look at a deployment: what is wrong, slow or hot",
        top.add_arguments,
        lambda options, _: top.run(options),
    ),
}
