"""A file with the bearer token that a process of this product shows to instances.

It is read whenever it is needed, so that a new token is used without a restart.
"""

import re
from pathlib import Path

from cachesvc.model.errors import ConfigError

_TOKEN = re.compile(rb"[!-~]{1,8192}")
LARGEST_FILE_BYTES = 1 << 14


def bearer_headers(file: str | Path | None, path: str) -> dict[str, str]:
    """Returns the header line that shows the token in the file; nothing without a file.

    Raises `ConfigError` at `path`, which repeats nothing that the file holds.
    """
    if not file:
        return {}
    try:
        with Path(file).open("rb") as opened:
            token = opened.read(LARGEST_FILE_BYTES).strip()
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error}") from error
    if not _TOKEN.fullmatch(token):
        raise ConfigError(path, f"{file} does not hold one token, in printable ASCII without spaces")
    return {"Authorization": f"Bearer {token.decode()}"}
