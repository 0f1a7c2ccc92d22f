"""The format of the HTTP cases (README.md) as structs: what does not fit is refused, so a misspelled field is no silent pass."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

HERE = Path(__file__).parent

Pattern: TypeAlias = Any
"""A JSON value; objects with a `$…` member are read as `patterns.py` says."""


class Request(Struct, forbid_unknown_fields=True):
    method: str
    target: Pattern
    headers: dict[str, Pattern] = {}
    json: Pattern = None
    msgpack: Pattern = None
    body: Pattern = None
    """Text, or `$bytes` or `$base64`."""


class Answer(Struct, forbid_unknown_fields=True):
    status: int
    headers: dict[str, Pattern] = {}
    json: Pattern = None
    msgpack: Pattern = None
    body: Pattern = None


class Call(Struct, forbid_unknown_fields=True):
    """What a user of an SDK calls to have this request sent, and what it gets."""

    do: Literal["get", "get_many", "set", "set_many", "delete", "invalidate", "receipt"]
    given: dict[str, Pattern]
    result: Pattern = None
    error: dict[str, Pattern] | None = None


class Event(Struct, forbid_unknown_fields=True):
    event: str
    data: Pattern
    id: Pattern = None


class Step(Struct, forbid_unknown_fields=True):
    """One of: an exchange; a request whose answer comes `later`, under a name; such an answer (`of`); time that passes
    (`advance`); `events` of a `stream` that an exchange has opened."""

    request: Request | None = None
    answer: Answer | None = None
    call: Call | None = None
    later: str = ""
    of: str = ""
    advance: float = 0.0
    """Seconds."""
    stream: str = ""
    events: list[Event] = []


class Case(Struct, forbid_unknown_fields=True):
    name: str
    steps: list[Step]
    needs: list[Literal["clock", "origin", "fault"]] = []
    """`clock`: time is turned by hand. `origin`: the namespace `articles` loads. `fault`: no request drives a service into it;
    a client is tried with the answer."""


class Suite(Struct, forbid_unknown_fields=True):
    topic: str
    about: str
    cases: list[Case]


class Vector(Struct, forbid_unknown_fields=True):
    """A pure function: what it is given, what it must give. Null: it must refuse."""

    given: Any
    expect: Any
    note: str = ""


class Vectors(Struct, forbid_unknown_fields=True):
    function: str
    about: str
    vectors: list[Vector]


def suites() -> Iterator[Suite]:
    for path in sorted((HERE / "cases").glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Suite)


def cases() -> list[tuple[str, Case]]:
    """Each case with its name in full, `topic: name`."""
    return [(f"{suite.topic}: {case.name}", case) for suite in suites() for case in suite.cases]


def vectors(function: str) -> list[Vector]:
    return msgspec.json.decode((HERE / "vectors" / f"{function}.json").read_bytes(), type=Vectors).vectors


def namespaces() -> dict[str, dict[str, Any]]:
    """The namespaces that the cases use, as a topology document declares them."""
    found: dict[str, dict[str, Any]] = json.loads((HERE / "namespaces.json").read_bytes())
    return found
