"""Templates that make keys and tags of a function's arguments: `profile:{user_id}`.

If the key of a cached function left out an argument that matters, one caller would be answered with
another caller's result. So every parameter is in the key or named in `ignore`, `self` and `cls`
too: a field of theirs may name an attribute, `{self.tenant}`. Two different argument lists never
make the same key: `%` and the text between two fields are percent-escaped in arguments, and only
types whose text is the value are taken (`1` and `"1"` count as the same). Two functions never have
the same template, or one would be answered with results of the other (`Declarations`).
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from enum import Enum
from string import Formatter
from typing import Any, NamedTuple
from uuid import UUID

from cachesvc_client.protocol.names import check_key, checked_tags, listed

_OWNERS = ("self", "cls")
_TOLD = "ctx"
"""The parameter that the load fills in (`context.py`)."""
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class _Piece(NamedTuple):
    """The text before a field, and the field; the text at the end has none."""

    before: str
    field: str = ""
    parameter: str = ""
    attributes: tuple[str, ...] = ()


class Template:
    """A text with fields, each the name of a parameter; of `self` and `cls` also an attribute.

    Raises `ValueError` if the text cannot be parsed or names an unknown parameter.
    """

    def __init__(self, text: str, parameters: Sequence[str]) -> None:
        self.text = text
        self._pieces: list[_Piece] = []
        self._escaped = "%"
        literal = ""
        for before, name, form, conversion in _parsed(text):
            literal += before
            if name is None:
                continue
            parameter, *attributes = name.split(".")
            is_path = not attributes or parameter in _OWNERS
            if form or conversion or not is_path or not all(map(str.isidentifier, name.split("."))):
                raise ValueError(
                    f"{text!r}: a field is a parameter's name and nothing more, such as {{user_id}};"
                    " only self and cls may be followed by an attribute, such as {self.tenant}"
                )
            if parameter not in parameters:
                raise ValueError(
                    f"{text!r}: the function has no parameter {parameter!r};"
                    f" it has {', '.join(parameters) or 'none'}"
                )
            if self._pieces:
                self._escaped += self._separator(literal)
            self._pieces.append(_Piece(literal, name, parameter, tuple(attributes)))
            literal = ""
        self._single = len(self._pieces) == 1
        self._end = literal
        self.parameters = frozenset(piece.parameter for piece in self._pieces)
        """The parameters that the template names."""
        self.shape = (*(piece.before for piece in self._pieces), literal)
        """The text around the fields: templates of one shape make the same keys."""

    def _separator(self, between: str) -> str:
        """Returns a character of the text between two fields; arguments have it escaped.

        One character is enough: where it first stands in a key, the field before it has ended.
        """
        if not between:
            raise ValueError(
                f"{self.text!r}: fields side by side cannot be told apart: put something between them"
            )
        return next((one for one in between if not one.isalnum()), between[0])

    def render(self, arguments: Mapping[str, object]) -> str:
        """Returns the text with its fields filled in.

        Raises `TypeError` for an argument whose text is not its value.
        """
        return "".join([piece.before + self._text_of(piece, arguments) for piece in self._pieces]) + self._end

    def _text_of(self, piece: _Piece, arguments: Mapping[str, object]) -> str:
        value = arguments[piece.parameter]
        try:
            for attribute in piece.attributes:
                value = getattr(value, attribute)
        except AttributeError as error:
            raise ValueError(f"{self.text!r}: {piece.field} cannot be read: {error}") from error
        if isinstance(value, Enum):
            value = value.value
        if not isinstance(value, str | int | UUID | date):
            why = "a text, a number, a UUID, a date or an enum of them can be part of a key"
            raise TypeError(f"{self.text!r}: {piece.field} is {value!r}: {why}")
        text = str(value)
        if self._single:
            return text
        return "".join(_escape(one) if one in self._escaped else one for one in text)


def _escape(one: str) -> str:
    return "".join(f"%{byte:02X}" for byte in one.encode())


def check_template(text: object) -> None:
    """Raises `ValueError` for what is no text, as of a decorator without its parentheses."""
    if not isinstance(text, str):
        raise ValueError(f"a template is a text, such as 'profile:{{user_id}}', not {text!r}")


def _parsed(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    check_template(text)
    try:
        return list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}; a brace that is meant is written twice") from None


class Naming:
    """The templates for the key and the tags of a function's calls.

    Mistakes in them raise `ValueError` when the function is decorated.
    """

    def __init__(
        self, function: Callable[..., object], key: str, tags: Iterable[str] = (), ignore: Iterable[str] = ()
    ) -> None:
        if not callable(function):
            raise ValueError(f"{key!r}: what is cached is a function, not {function!r}")
        signature = inspect.signature(function)
        self.takes_context = _TOLD in signature.parameters
        self._signature = _without_context(signature)
        parameters = list(self._signature.parameters.values())
        names = [parameter.name for parameter in parameters]
        all_positional = all(parameter.kind in _POSITIONAL for parameter in parameters)
        self._positional = tuple(names) if all_positional else None
        self._key = Template(key, names)
        self._tags = [Template(tag, names) for tag in listed(tags, "tags")]
        self.template = key
        self.shape = self._key.shape
        self.function = _name_of(function)
        ignored = set(listed(ignore, "ignore"))
        is_bound = not _is_plain(function)
        if unknown := ignored - set(names) - ({"self"} if is_bound else set()):
            raise ValueError(f"ignore: the function has no parameter {min(unknown)!r}")
        if is_bound and "self" not in ignored:
            raise ValueError(
                f"{key!r}: the key cannot name what {function!r} is bound to:"
                " decorate the function itself, or say ignore=['self'] if no result depends on it"
            )
        for name in names:
            if name in self._key.parameters or name in ignored:
                continue
            field = (
                f"{{{name}.…}}, an attribute such as {{{name}.tenant}},"
                if name in _OWNERS
                else f"{{{name}}},"
            )
            raise ValueError(f"{key!r}: add {field} or say ignore=[{name!r}] if no result depends on it")

    def key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """Returns the key of a call with these arguments.

        Raises `TypeError` for arguments that the function does not take, and `ValueError` for a text
        that cannot be a key.
        """
        key = self._key.render(self._bound(args, kwargs))
        check_key(key)
        return key

    def tags(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the tags of a call with these arguments; raises as `key` does."""
        if not self._tags:
            return ()
        arguments = self._bound(args, kwargs)
        return checked_tags([tag.render(arguments) for tag in self._tags])

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not kwargs and self._positional is not None and len(args) == len(self._positional):
            # Nearly every call; `bind` takes ten times as long.
            return dict(zip(self._positional, args, strict=True))
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _is_plain(function: Callable[..., object]) -> bool:
    """True if the function has no arguments beside those of its signature.

    A bound method has its object, a partial its arguments, and an object with `__call__` itself.
    """
    while not inspect.isfunction(function):
        wrapped = None if inspect.ismethod(function) else getattr(function, "__wrapped__", None)
        if wrapped is None:
            return False
        function = wrapped
    return True


def _name_of(function: Callable[..., object]) -> str:
    plain = inspect.unwrap(function)
    return f"{getattr(plain, '__module__', '')}.{getattr(plain, '__qualname__', repr(plain))}"


class Declarations:
    """The templates of the functions that are cached in one namespace of a client."""

    def __init__(self) -> None:
        self._by_shape: dict[tuple[str, ...], tuple[Naming, bool]] = {}

    def add(self, naming: Naming, *, shared: bool) -> None:
        """Notes a template; `shared`: other functions that say so too may have it.

        Raises `ValueError` if another function has it. A function that is defined once more, as when
        its module is loaded again, replaces itself; not one inside a function, whose results may
        depend on what is around it.
        """
        known, known_shared = self._by_shape.setdefault(naming.shape, (naming, shared))
        if known is naming or (shared and known_shared):
            return
        if known.function != naming.function or "<locals>" in naming.function:
            raise ValueError(
                f"{naming.template!r}: {known.function} has the template {known.template!r}, so that"
                f" {naming.function} would be answered with its results: choose another one, or say"
                " shared=True for both if their results are the same"
            )
        self._by_shape[naming.shape] = (naming, shared)


def _without_context(signature: inspect.Signature) -> inspect.Signature:
    """Returns the signature without `ctx`, which the load fills in.

    Raises `ValueError` if `ctx` is followed by another positional parameter.
    """
    parameters = list(signature.parameters.values())
    told = signature.parameters.get(_TOLD)
    if told is not None and told.kind is not inspect.Parameter.KEYWORD_ONLY and parameters[-1] is not told:
        raise ValueError(f"{_TOLD}: the function's last parameter, or a keyword-only one")
    return signature.replace(parameters=[parameter for parameter in parameters if parameter is not told])
