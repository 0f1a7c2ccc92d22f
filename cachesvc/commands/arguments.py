"""Arguments that several commands take, and the way in which a command reports a failure."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from cachesvc.config.addresses import http_fault, without_userinfo
from cachesvc.config.document import LARGEST
from cachesvc.model.errors import ConfigError
from cachesvc.model.printable import printable
from cachesvc.model.units import Duration


def add_announcing_region(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    parser.add_argument(
        "--region",
        default=environ.get("CACHESVC_REGION", ""),
        help="The region on whose queue the changes are announced. Every region applies them."
        " Default: CACHESVC_REGION.",
    )


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
        found = Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except OverflowError:
        found = Duration(LARGEST + 1)
    if found > LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than can be counted")
    return found


def utf8(text: str) -> str:
    """A text as an argument's type: bytes that are not UTF-8 are refused.

    Python has them as surrogates, which no server could be sent.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{printable(text)} is not UTF-8") from None
    return text


def header_value(text: str) -> str:
    """A text that is sent in a header, as an argument's type: printable ASCII."""
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("it holds a character that a header cannot have")
    return text


def instance_url(text: str, option: str = "--url") -> str:
    """The base URL of an instance, without a slash at its end. Raises `ConfigError`."""
    if fault := http_fault(text, userinfo=True):
        shown = without_userinfo(text)
        raise ConfigError(option, f"{shown!r} must be http://host:port of an instance: {fault}")
    return text.rstrip("/")


def fail(exit_code: int, message: str) -> int:
    """Prints the message to stderr and returns the exit code."""
    print(f"cachesvc: {printable(message, keep=chr(10))}", file=sys.stderr)
    return exit_code


def tell_mistakes(error: ConfigError) -> int:
    """Prints each mistake to stderr and returns the exit code."""
    return max(fail(2, str(one)) for one in error.each())
