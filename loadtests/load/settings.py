"""The settings of a load, from environment variables (`LOAD_*`).

A runner and a person at a shell set them in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loadtests.load.arrivals import Step, steps_of
from loadtests.load.keys import Part, keys_of

T = TypeVar("T")

KINDS = ("http", "sdk", "writer", "bulk")
"""The kinds of users, see `users.py`."""


@dataclass(frozen=True)
class Settings:
    """All settings of a load."""

    urls: tuple[str, ...]
    """`LOAD_URLS`: base URLs of the instances, separated by commas."""
    namespace: str
    """`LOAD_NAMESPACE`: a namespace that reads through from the reference origin."""
    out: Path
    """`LOAD_OUT`: the folder for `samples.jsonl` and `summary.json`."""
    mix: Mapping[str, int]
    """`LOAD_MIX`: the share of each kind of user, such as `http=6,sdk=3,writer=1,bulk=1`.

    In an open loop these are also the shares of the requests.
    """
    keys: str
    """`LOAD_KEYS`: see `keys.FORMS`."""
    rate: tuple[Step, ...]
    """`LOAD_RATE`: requests per second of all users together (`arrivals.steps_of`).

    Empty for `0`: a closed loop, in which each user asks again when it was answered.
    """
    seed: int
    """`LOAD_SEED`: the seed of keys and arrivals."""
    value_bytes: int
    """`LOAD_VALUE_BYTES`: the size of the origin's documents; 0 leaves it as it is."""
    origin: str
    """`LOAD_ORIGIN`: base URL of the reference origin, whose documents the writers change."""
    max_lag: float
    """`LOAD_MAX_LAG`: the namespace's `max_lag` in seconds.

    A read is too stale if it is older than an invalidation that was answered longer ago than this.
    """
    timeout: float
    """`LOAD_TIMEOUT`: seconds that a caller waits."""

    def share_of(self, kind: str) -> float:
        """The share of this kind among all users, 0 to 1."""
        return self.mix[kind] / sum(self.mix.values())


def settings_of(environ: Mapping[str, str]) -> Settings:
    """The settings in `environ`. Raises a `ValueError` that names the variable."""

    def read(name: str, default: str, parse: Callable[[str], T]) -> T:
        text = environ.get(name, default)
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return Settings(
        urls=read("LOAD_URLS", "", _urls_of),
        namespace=environ.get("LOAD_NAMESPACE", "docs"),
        out=Path(environ.get("LOAD_OUT", ".run/load")),
        mix=read("LOAD_MIX", "http=1", mix_of),
        keys=read("LOAD_KEYS", "zipf:20000:1.1", _keys_of),
        rate=read("LOAD_RATE", "0", _rate_of),
        seed=read("LOAD_SEED", "1", int),
        value_bytes=read("LOAD_VALUE_BYTES", "0", int),
        origin=environ.get("LOAD_ORIGIN", "http://127.0.0.1:9100").rstrip("/"),
        max_lag=read("LOAD_MAX_LAG", "2", float),
        timeout=read("LOAD_TIMEOUT", "5", float),
    )


def mix_of(text: str) -> dict[str, int]:
    """The weights by kind of user; kinds with weight 0 are left out."""
    mix = {kind.strip(): weight for kind, _, weight in (pair.partition("=") for pair in text.split(","))}
    if unknown := mix.keys() - set(KINDS):
        raise ValueError(
            f"{text!r}: no kind of user is called {min(unknown)!r}; there are {', '.join(KINDS)}"
        )
    if not all(weight.strip().isdigit() for weight in mix.values()):
        raise ValueError(f"{text!r}: whole numbers, such as http=6,writer=1")
    weights = {kind: int(weight) for kind, weight in mix.items() if int(weight)}
    if not weights:
        raise ValueError(f"{text!r}: nobody is there")
    return weights


def _urls_of(text: str) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in text.split(",") if url.strip())
    if not urls or not all(url.startswith(("http://", "https://")) for url in urls):
        raise ValueError(
            f"{text!r}: base URLs of instances, such as http://127.0.0.1:8101,http://127.0.0.1:8102"
        )
    return urls


def _keys_of(text: str) -> str:
    keys_of(text, Part(), seed=0)
    return text


def _rate_of(text: str) -> tuple[Step, ...]:
    return () if text.strip() == "0" else steps_of(text)
