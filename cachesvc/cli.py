"""The entry point: runs one of the commands of `commands/command_line.py`.

Exit codes: 0 for success, or after a stop by a signal of a command that runs until then; 1 if the
command could not run (a port in use, a server that does not start); 2 if the command line or a
configuration document is wrong; 130 after Ctrl-C, and 141 if the reader of the output left
(`| head`), as a shell reports both. `check` and `top` give 1 a second meaning: what they looked at
is not well. Messages go to stderr, a line for each mistake, and never as a traceback for a mistake
that a person can correct.
"""

import io
import os
import sys
from collections.abc import Mapping, Sequence

from cachesvc.commands.exit_codes import INTERRUPTED, OUTPUT_CLOSED


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs a command and returns its exit code. `arguments`: without the program's name."""
    _make_streams_safe()
    try:
        # Here, because it takes most of a second, and Ctrl-C at that time is no error either.
        from cachesvc.commands.command_line import run

        try:
            return run(arguments, environ)
        finally:
            sys.stdout.flush()  # a failure at the interpreter's end could not be told any more
    except BrokenPipeError:
        _leave_stdout()
        return OUTPUT_CLOSED
    except OSError as error:
        _leave_stdout()
        print(f"cachesvc: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _make_streams_safe() -> None:
    """Lets every text be written, whatever the streams are.

    A stream that was closed by the caller (`>&-`) is None. One of another encoding than UTF-8 would
    refuse the signs of a table.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  for the whole run
        elif isinstance(stream, io.TextIOWrapper) and stream.writable():
            stream.reconfigure(errors="backslashreplace")


def _leave_stdout() -> None:
    """Drops what is still buffered: the interpreter would try to write it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
