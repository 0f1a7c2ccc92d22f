"""Arguments that several commands take, and the way in which a command reports a failure."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from cachesvc.model.printable import printable
from cachesvc.model.units import Duration


def add_topology(parser: argparse.ArgumentParser, environ: Mapping[str, str], purpose: str) -> None:
    """Adds `--topology`. `purpose` is a sentence for the help: what the document is for."""
    parser.add_argument(
        "--topology",
        type=Path,
        metavar="FILE",
        default=path_in(environ, "CACHESVC_TOPOLOGY"),
        help=f"The topology document. {purpose} Default: the file that CACHESVC_TOPOLOGY names.",
    )


def path_in(environ: Mapping[str, str], name: str) -> Path | None:
    """The path that an environment variable names; None if it is unset or empty."""
    return Path(environ[name]) if environ.get(name) else None


def duration(text: str) -> Duration:
    """A duration as an argument's type. Raises `ArgumentTypeError`, whose text argparse shows."""
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def fail(exit_code: int, message: str) -> int:
    """Prints the message to stderr and returns the exit code."""
    print(f"cachesvc: {printable(message, keep=chr(10))}", file=sys.stderr)
    return exit_code
