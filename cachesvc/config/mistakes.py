"""All mistakes of a document, so that a person sees them at once.

A rule that does not hold is noted and the check goes on. What follows from another mistake is not
noted again: each place has its first mistake only, and a place that could not be read (the default,
or an empty value, stands in for it) takes part in no rule.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cachesvc.model.errors import ConfigError


class Mistakes:
    """The mistakes that were found in one document, or in several."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], ConfigError] = {}
        self._unread: set[tuple[str, str]] = set()
        self._document = ""

    def __repr__(self) -> str:
        return f"<Mistakes [{len(self._noted)}]>"

    def within(self, document: str) -> "Mistakes":
        """The same mistakes, for noting those of another document. Its name precedes its paths."""
        other = Mistakes()
        other._noted, other._unread, other._document = self._noted, self._unread, document
        return other

    def copy(self) -> "Mistakes":
        """Mistakes that begin with these, and to which more can be added apart."""
        other = Mistakes()
        other._noted, other._unread, other._document = dict(self._noted), set(self._unread), self._document
        return other

    def note(self, path: str, why: str) -> None:
        """Notes a mistake, unless this place has one or could not be read."""
        place = (self._document, path)
        if place not in self._noted and self.is_read(path):
            self._noted[place] = ConfigError(f"{self._document}{path}", why)

    def note_unread(self, path: str, why: str) -> None:
        """Notes that the value at this place cannot be used; nothing else is said of it."""
        self.note(path, why)
        self._unread.add((self._document, path))

    def note_all(self, path: str, error: ConfigError) -> None:
        """Notes the mistakes of an error as they are, for which the value at `path` is not read."""
        for one in error.each():
            self._noted.setdefault((self._document, one.path), ConfigError(one.path, one.why))
        self._unread.add((self._document, path))

    def require(self, holds: bool, path: str, why: str, *others: str) -> None:
        """Notes a mistake unless the rule `holds`. `others`: more places that the rule looks at."""
        if not holds and all(map(self.is_read, others)):
            self.note(path, why)

    def is_read(self, path: str) -> bool:
        """True if the value at the place was read, and all that it stands in."""
        ends = [at for at, one in enumerate(path) if one in ".["]
        return not any((self._document, path[:end]) in self._unread for end in (*ends, len(path)))

    def noted(self) -> Sequence[ConfigError]:
        """All mistakes, in the order in which they were found."""
        return list(self._noted.values())

    def end(self) -> None:
        """Raises one `ConfigError` with all mistakes, if there are any."""
        if self._noted:
            first, *others = self.noted()
            raise ConfigError(first.path, first.why, *others)


@contextmanager
def collected(found: Mistakes | None) -> Iterator[Mistakes]:
    """`found` itself; without one, new mistakes, which are raised at the end of the block."""
    if found is not None:
        yield found
        return
    own = Mistakes()
    yield own
    own.end()
