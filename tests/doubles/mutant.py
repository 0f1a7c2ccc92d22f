"""A protection of docs/coherence.md that can be taken out, and what happens then."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.doubles.edits import Edit, Undo


@dataclass(frozen=True)
class Mutant:
    """A named protection, the edits that take it out, and the traces that happen then."""

    without: str
    """The behaviour that is left once the protection is taken out."""
    breaks: tuple[int, ...]
    """The traces that happen then."""
    edits: Sequence[Edit]

    def apply(self) -> Undo:
        """Takes the protection out of this process; returns a function that puts it back.

        Call it before anything is built: objects that hold a method or a script already keep it.
        """
        undone = [edit.apply() for edit in self.edits]

        def undo() -> None:
            for put_back in reversed(undone):
                put_back()

        return undo
