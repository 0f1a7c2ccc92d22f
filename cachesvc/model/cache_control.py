"""`Cache-Control` (RFC 9111, 5.2 and RFC 5861), as origins, readers and writers send it.

`parse` never fails: a member that it cannot read stands in the result as not well formed, under
the name that the member begins with. The consequence depends on the sender. An origin's field is
read the safe way (`lifetimes_of`; RFC 9111, 4.2.1: a directive that is invalid or contradicts
itself counts as stale). A caller's field is refused (`read_options_of` and `write_lifetimes_of`
raise `RequestError`), because a directive that is dropped in silence would change the question.
"""

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from cachesvc.model.clock import SECONDS
from cachesvc.model.errors import RequestError
from cachesvc.model.memo import memo
from cachesvc.model.problems import ProblemKind
from cachesvc.model.requests import ReadOptions

LONGEST_SECONDS = 1 << 31
"""A larger delta-seconds is read as this (RFC 9111, 1.2.2), as is `max-stale` alone."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 the grammar's "token", not a secret
_NAME = re.compile(_TOKEN)
_SEPARATORS = re.compile(r"[ \t,]*+")
_MEMBER = re.compile(
    rf'(?P<name>{_TOKEN})(?:=(?:(?P<token>{_TOKEN})|"(?P<quoted>(?:[^"\\]|\\.)*+)"))?[ \t]*+(?=,|\Z)',
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_DELTA_SECONDS = re.compile(r"[0-9]+")

_READ_SECONDS = ("max-age", "min-fresh")
_READ_FLAGS = ("no-cache", "no-store", "only-if-cached")
_READ_CONFLICTS = (("only-if-cached", "no-cache"), ("max-stale", "no-cache"), ("max-stale", "min-fresh"))
_WRITE_SECONDS = ("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error")
_UNSTORABLE = ("no-store", "private")


class Directive(Struct, frozen=True, gc=False):
    """One member of the field."""

    name: str
    """The name in lower case; empty if the member does not begin with a token."""
    argument: str | None
    """The argument without its quotes; None if there is none."""
    well_formed: bool = True


class Lifetimes(Struct, frozen=True, gc=False):
    """How long an answer may be used, in µs. None: the sender leaves it to the namespace."""

    ttl_us: int | None = None
    stale_for_us: int | None = None
    error_for_us: int | None = None
    storable: bool = True


def parse(values: Iterable[str]) -> list[Directive]:
    """Returns the directives of all lines of the field, in order, duplicates included."""
    return [directive for value in values for directive in _members(value)]


def _members(value: str) -> Iterable[Directive]:
    at = _SEPARATORS.match(value).end()  # type: ignore[union-attr] # it matches the empty string everywhere
    while at < len(value):
        if member := _MEMBER.match(value, at):
            yield Directive(member["name"].lower(), _argument(member))
            end = member.end()
        else:
            # Parsing goes on after the next comma, even if that comma is inside an unfinished quotation:
            # a `no-store` behind it must not be lost.
            name = _NAME.match(value, at)
            yield Directive(name[0].lower() if name else "", None, well_formed=False)
            end = value.find(",", at)
            end = len(value) if end < 0 else end
        at = _SEPARATORS.match(value, end).end()  # type: ignore[union-attr] # as above


def _argument(member: re.Match[str]) -> str | None:
    quoted = member["quoted"]
    return member["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)


def delta_seconds(text: str | None) -> int | None:
    """Returns whole seconds, at most `LONGEST_SECONDS`; None if `text` is not a delta-seconds."""
    if text is None or not _DELTA_SECONDS.fullmatch(text):
        return None
    digits = text.lstrip("0")
    return min(int(digits or "0"), LONGEST_SECONDS) if len(digits) <= 10 else LONGEST_SECONDS


def lifetimes_of(directives: Sequence[Directive]) -> Lifetimes:
    """Returns the lifetimes that an origin's response directives allow a shared cache.

    Never raises.

    `s-maxage` wins over `max-age`. It implies `proxy-revalidate`, so it allows no stale answer unless
    the origin gives a window itself. `no-cache` and `must-revalidate` allow no stale answer at all.
    The qualified forms (`private="set-cookie"`) count as the plain ones.
    """
    names = {directive.name for directive in directives}
    shared, ttl = _safest(directives, "s-maxage"), _safest(directives, "max-age")
    stale, error = _safest(directives, "stale-while-revalidate"), _safest(directives, "stale-if-error")
    if shared is not None:
        ttl, stale, error = shared, stale or 0, error or 0
    if "no-cache" in names:
        ttl = 0
    if not names.isdisjoint(("no-cache", "must-revalidate", "proxy-revalidate")):
        stale = error = 0
    return Lifetimes(_us(ttl), _us(stale), _us(error), storable=names.isdisjoint(_UNSTORABLE))


def _safest(directives: Sequence[Directive], name: str) -> int | None:
    """Returns seconds: 0 if the directive is invalid or contradicts itself, None without one."""
    found = {delta_seconds(directive.argument) for directive in directives if directive.name == name}
    if not found:
        return None
    return (found.pop() or 0) if len(found) == 1 else 0


def _us(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * SECONDS


@memo
def read_options_of(cache_control: str) -> ReadOptions:
    """Returns the options that a reader's request directives ask for.

    Unknown directives are ignored, as RFC 9111 wants. Raises `RequestError` (`bad-cache-control`) for
    a field that is malformed, contradicts itself, or has two directives that exclude each other.
    """
    arguments = _asked(cache_control)
    for one, other in _READ_CONFLICTS:
        if one in arguments and other in arguments:
            raise _bad(f"{one} and {other} exclude each other")
    flags = {name: _flag(arguments, name) for name in _READ_FLAGS}
    max_age, min_fresh = (_seconds(arguments, name) for name in _READ_SECONDS)
    return ReadOptions(
        max_age_us=_us(max_age),
        max_stale_us=_us(_max_stale(arguments)),
        min_fresh_us=(min_fresh or 0) * SECONDS,
        no_cache=flags["no-cache"],
        no_store=flags["no-store"],
        only_if_cached=flags["only-if-cached"],
    )


@memo
def write_lifetimes_of(cache_control: str) -> Lifetimes:
    """Returns the lifetimes that a `PUT` gives its value.

    They are response directives, so a caller can pass on those of its own origin. Raises
    `RequestError` (`bad-cache-control`) for a field that is malformed or contradicts itself, and for
    `no-store` and `private`: the value must not be kept, and only the caller can act on that.
    """
    arguments = _asked(cache_control)
    for name in _WRITE_SECONDS:
        _seconds(arguments, name)
    for name in _UNSTORABLE:
        if name in arguments:
            raise _bad(f"{name} forbids what a PUT is for")
    return lifetimes_of([Directive(name, argument) for name, argument in arguments.items()])


def _asked(cache_control: str) -> dict[str, str | None]:
    """Returns directive → argument of a caller's field.

    Raises `RequestError` if it is malformed.
    """
    arguments: dict[str, str | None] = {}
    for directive in _members(cache_control):
        if not directive.well_formed:
            raise _bad(
                f"the member that begins with {directive.name!r} is malformed"
                if directive.name
                else "a member has no name"
            )
        if arguments.setdefault(directive.name, directive.argument) != directive.argument:
            raise _bad(f"{directive.name} is given twice, with different arguments")
    return arguments


def _seconds(arguments: dict[str, str | None], name: str) -> int | None:
    if name not in arguments:
        return None
    seconds = delta_seconds(arguments[name])
    if seconds is None:
        raise _bad(f"{name} takes a number of seconds, such as {name}=60")
    return seconds


def _max_stale(arguments: dict[str, str | None]) -> int | None:
    if arguments.get("max-stale", "") is None:
        return LONGEST_SECONDS
    return _seconds(arguments, "max-stale")


def _flag(arguments: dict[str, str | None], name: str) -> bool:
    if arguments.get(name) is not None:
        raise _bad(f"{name} takes no argument in a request")
    return name in arguments


def _bad(why: str) -> RequestError:
    return RequestError(ProblemKind.BAD_CACHE_CONTROL, why, field="Cache-Control")
