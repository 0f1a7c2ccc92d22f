"""The keys of the seal of copies in memcached: form, file, and where they are needed.

No message repeats a key.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from cachesvc.config.addresses import TLS_PREFIX
from cachesvc.config.topology import STAND_IN, MemcachedServer
from cachesvc.model.errors import ConfigError
from cachesvc.model.loopback import is_loopback

_KEY = re.compile(r"(?:[0-9A-Fa-f]{2}){16,64}")
"""16 bytes (128 bits) at least; BLAKE2b takes 64 at most."""
_FORM = "32 to 128 hexadecimal digits, an even number; `openssl rand -hex 32` makes one"


def seal_keys(text: str, path: str = "$.l2.seal_keys") -> tuple[bytes, ...]:
    """Returns the keys of the text, the one that seals first. Raises `ConfigError`."""
    keys = text.split()
    _require(len(keys) <= 2, path, "holds more than 2 keys: the one that seals, and the one before it")
    for number, key in enumerate(keys, 1):
        _require(bool(_KEY.fullmatch(key)), path, f"key {number} is not {_FORM}")
        distinct = len(set(bytes.fromhex(key)))
        _require(distinct >= 8, path, f"key {number} is easy to guess: `openssl rand -hex 32` makes another")
    _require(len(set(map(str.lower, keys))) == len(keys), path, "holds the same key twice")
    return tuple(map(bytes.fromhex, keys))


def _require(holds: bool, path: str, why: str) -> None:
    if not holds:
        raise ConfigError(path, why)


def read_seal_keys(file: str, path: str = "$.l2.seal_keys_file") -> str:
    """Returns the text of the file, which holds one key at least. Raises `ConfigError`."""
    try:
        text = Path(file).read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error}") from error
    except UnicodeDecodeError:
        raise ConfigError(path, f"{file} is no text: a key is {_FORM}") from None
    _require(bool(seal_keys(text, path)), path, f"{file} holds no key")
    return text


def check_sealed(seal: bool, keys: str, pool: Iterable[tuple[str, MemcachedServer]]) -> None:
    """Raises `ConfigError` if copies would go unsealed to a server that others may reach."""
    far = [(name, server.address) for name, server in pool if not _is_here(server.address)]
    if not seal or keys.strip() or not far:
        return
    name, address = far[0]
    raise ConfigError(
        "$.l2.seal_keys",
        f"is empty, but memcached {name} ({address}) is not on this machine, and whoever reaches it could "
        "write values that are answered: give all instances of the region a key (CACHESVC_L2_SEAL_KEYS, or "
        "l2.seal_keys_file; `openssl rand -hex 32` makes one), or say `l2: {seal: false}` if only they "
        "reach it",
    )


def _is_here(address: str) -> bool:
    """True for an address that only this machine reaches: loopback, unix socket, stand-in."""
    address = address.removeprefix(TLS_PREFIX)
    if address == STAND_IN or address.startswith("unix:"):
        return True
    return is_loopback(address.rpartition(":")[0].strip("[]").lower())
