"""Suggestions for misspelt names in error messages."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Returns ` (did you mean 'ttl'?)` if a name is close, else the names if they are few.

    Else it returns the empty text.
    """
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (there is {', '.join(names)})" if 0 < len(names) <= 12 else ""
