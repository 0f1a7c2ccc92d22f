"""The format of the HTTP cases and of the vectors (README.md) as structs.

A document that does not fit is refused, so that a misspelled field cannot make a case pass.
"""

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
    """A request that a step sends; it has one body at most."""

    method: str
    target: Pattern
    headers: dict[str, Pattern] = {}
    json: Pattern = None
    msgpack: Pattern = None
    body: Pattern = None
    """A text, or an object with `$bytes` or `$base64`."""


class Answer(Struct, forbid_unknown_fields=True):
    """The answer that a step expects; it has one body at most."""

    status: int
    headers: dict[str, Pattern] = {}
    json: Pattern = None
    msgpack: Pattern = None
    body: Pattern = None


class Call(Struct, forbid_unknown_fields=True):
    """The call by which a user of an SDK has the request sent, and the outcome of the call."""

    do: Literal["get", "get_many", "set", "set_many", "delete", "invalidate", "receipt"]
    given: dict[str, Pattern]
    result: Pattern = None
    error: dict[str, Pattern] | None = None


class Event(Struct, forbid_unknown_fields=True):
    """An event that a stream is expected to bring."""

    event: str
    data: Pattern
    id: Pattern = None


class Step(Struct, forbid_unknown_fields=True):
    """One step of a case.

    A step is one of: an exchange; a request whose answer comes `later`, under a name; such an answer
    (`of` that name); time that passes (`advance`); `events` of a `stream` that an exchange has opened.
    """

    request: Request | None = None
    answer: Answer | None = None
    call: Call | None = None
    later: str = ""
    of: str = ""
    advance: float = 0.0
    """The seconds that pass."""
    stream: str = ""
    events: list[Event] = []


class Case(Struct, forbid_unknown_fields=True):
    """Steps that begin with a service which holds nothing; `name` is the rule that they prove."""

    name: str
    steps: list[Step]
    needs: list[Literal["clock", "origin", "fault"]] = []
    """The abilities that a replayer must have.

    `clock`: time can be turned by hand. `origin`: the namespace `articles` loads. `fault`: no
    request makes a service answer so; the answer is for trying clients.
    """


class Suite(Struct, forbid_unknown_fields=True):
    """One file of `cases/`."""

    topic: str
    about: str
    cases: list[Case]


class Vector(Struct, forbid_unknown_fields=True):
    """An input of a pure function, and the output that it must give; null if it must refuse."""

    given: Any
    expect: Any
    note: str = ""


class Vectors(Struct, forbid_unknown_fields=True):
    """One file of `vectors/`."""

    function: str
    about: str
    vectors: list[Vector]


def suites() -> Iterator[Suite]:
    """Yields all files of `cases/`, in the order of their names."""
    for path in sorted((HERE / "cases").glob("*.json")):
        yield msgspec.json.decode(path.read_bytes(), type=Suite)


def cases() -> list[tuple[str, Case]]:
    """Returns each case with its full name, `topic: name`."""
    return [(f"{suite.topic}: {case.name}", case) for suite in suites() for case in suite.cases]


def vectors(function: str) -> list[Vector]:
    """Returns the vectors of the function of this name."""
    return msgspec.json.decode((HERE / "vectors" / f"{function}.json").read_bytes(), type=Vectors).vectors


def namespaces() -> dict[str, dict[str, Any]]:
    """Returns the namespaces that the cases use, as a topology document declares them."""
    found: dict[str, dict[str, Any]] = json.loads((HERE / "namespaces.json").read_bytes())
    return found
