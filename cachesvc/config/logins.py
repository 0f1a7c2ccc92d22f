"""Users and passwords for Redis and memcached servers. No message repeats a password."""

from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from cachesvc.config.document import Secret
from cachesvc.config.mistakes import Mistakes
from cachesvc.model.errors import ConfigError

LONGEST_FILE = 4096
"""Characters of a file that are read."""


class RedisLogin(Struct, frozen=True, forbid_unknown_fields=True):
    """A user of Redis's ACL, as which servers know this instance."""

    user: str = ""
    """The name of the user. Empty: `default`, Redis's name for one that names none."""
    password: Secret = ""
    """The user's password. It is never logged or shown."""
    password_file: str = ""
    """The path of a file with the password, in place of `password`. It is read for each new
    connection: a new password needs no restart."""


class RedisLogins(RedisLogin, frozen=True, forbid_unknown_fields=True):
    """The user (of its ACL) that cells and queues know this instance as.

    A server whose URL holds a user or a password is given those instead. A block for one kind of server
    stands in place of the fields here, whole, if any of its fields is given.
    """

    cells: RedisLogin = field(default_factory=RedisLogin)
    """For cells."""
    queues: RedisLogin = field(default_factory=RedisLogin)
    """For queues."""


def login_for(logins: RedisLogins, kind: Literal["cells", "queues"]) -> tuple[str, RedisLogin]:
    """Returns the path and the login that hold for one kind of server."""
    own: RedisLogin = getattr(logins, kind)
    return ("$.redis", logins) if own == RedisLogin() else (f"$.redis.{kind}", own)


def line_of(file: str) -> str:
    """Returns the first line of a file that holds a secret. Raises `OSError` and `ValueError`."""
    with Path(file).open(encoding="utf-8") as opened:
        line = opened.readline(LONGEST_FILE).strip("\r\n")
    if not line:
        raise ValueError(f"{file} begins with an empty line: its first line is the secret")
    return line


def check_redis_logins(logins: RedisLogins, found: Mistakes) -> None:
    """Notes what is wrong with the logins, or with their files."""
    for path, login in (
        ("$.redis", logins),
        ("$.redis.cells", logins.cells),
        ("$.redis.queues", logins.queues),
    ):
        check_redis_login(login, path, found)


def check_redis_login(login: RedisLogin, path: str, found: Mistakes) -> None:
    """Notes what is wrong with the login at this path, or with its file."""
    found.require(
        not (login.password and login.password_file),
        f"{path}.password",
        f"is given beside {path[2:]}.password_file: keep one of them",
    )
    found.require(
        bool(login.password or login.password_file) or not login.user,
        f"{path}.password",
        "is missing: `user` needs one, or a `password_file`",
    )
    found.require(
        login.user.isprintable() and " " not in login.user,
        f"{path}.user",
        "holds a space or a control character",
    )
    _check_file(login.password_file, f"{path}.password_file", found)


def check_memcached_auth(auth: str, file: str, found: Mistakes) -> None:
    """Notes what is wrong with user and password for memcached, or with their file."""
    found.require(not (auth and file), "$.l2.auth", "is given beside l2.auth_file: keep one of them")
    if auth:
        _check_auth(auth, "$.l2.auth", found)
    if line := _check_file(file, "$.l2.auth_file", found):
        _check_auth(line, "$.l2.auth_file", found)


def _check_auth(auth: str, path: str, found: Mistakes) -> None:
    try:
        auth_command(auth)
    except ValueError as error:
        found.note(path, str(error))


def _check_file(file: str, path: str, found: Mistakes) -> str:
    if not file:
        return ""
    try:
        return line_of(file)
    except OSError as error:
        found.note(path, f"cannot be read: {error.strerror}: {file}")
    except UnicodeDecodeError:
        found.note(path, f"{file} is not UTF-8")
    except ValueError as error:
        found.note(path, str(error))
    return ""


def auth_command(auth: str) -> bytes:
    """Returns memcached's command for `user:password`, which is the form of its `-Y` file.

    The ASCII protocol has no command of its own for it: the first `set` of a connection, whatever
    its key, is taken for the login (memcached's doc/protocol.txt). Raises `ValueError`.
    """
    user, colon, password = auth.partition(":")
    if not (colon and user and password):
        raise ValueError("is not user:password, as a line of memcached's auth file (-Y) is")
    if any(sign.isspace() or not sign.isprintable() for sign in auth):
        raise ValueError("holds a space or a control character, which memcached cannot be told")
    data = f"{user} {password}".encode()
    return b"set auth 0 0 %d\r\n%b\r\n" % (len(data), data)


def redis_credentials(login: RedisLogin, path: str) -> tuple[str, ...]:
    """Returns user and password, or the password alone, as AUTH takes them. Reads the file.

    `path` is that of the login in the service document.

    Raises `ConfigError`, which names the file.
    """
    try:
        password = line_of(login.password_file) if login.password_file else login.password
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}.password_file", f"cannot be used: {error}") from None
    return (login.user, password) if login.user else (password,)
