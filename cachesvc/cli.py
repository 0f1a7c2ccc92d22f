"""The entry point: runs `serve`, `check-config`, `publish`, `check`, `explain` or `top`.

Exit codes: 0 for success, or after a stop by a signal; 1 if the command could not run (a port in
use, a server that does not start); 2 if the command line or a configuration document is wrong.
`check` and `top` give 1 a second meaning: what they looked at is not well. Messages go to stderr,
and never as a traceback for a mistake that a person can correct.
"""

import os
from collections.abc import Mapping, Sequence

from cachesvc.app.embedded.server_process import ServerStartError
from cachesvc.commands.arguments import fail
from cachesvc.commands.command_line import COMMANDS, parser
from cachesvc.model.errors import ConfigError, TierError


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs a command and returns its exit code. `arguments`: without the program's name."""
    options = parser(environ).parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, environ)
    except ConfigError as error:
        return fail(2, str(error))
    except (ServerStartError, TierError) as error:
        return fail(1, str(error))
    except KeyboardInterrupt:
        return 0
