"""Suggestions for misspelt names in error messages."""

import difflib
from collections.abc import Collection, Iterable

_FEW = 12


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Returns ` (did you mean 'ttl'?)` if a name is close, else the names if they are few.

    Else it returns the empty text. For configuration and commands only: the search compares the word
    with every name, and would let any caller keep an instance busy with names that do not exist.
    """
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else there_is(names)


def there_is(known: Collection[object]) -> str:
    """Returns ` (there is pages, users)` if the names are few, else the empty text."""
    return f" (there is {', '.join(map(str, known))})" if 0 < len(known) <= _FEW else ""
