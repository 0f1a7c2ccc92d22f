"""A protection of docs/coherence.md that can be taken out, and what happens then."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.doubles.edits import Edit, Undo


@dataclass(frozen=True)
class Mutant:
    without: str
    """The behaviour that is left once the protection is taken out."""
    breaks: tuple[int, ...]
    """The traces that happen then."""
    edits: Sequence[Edit]

    def apply(self) -> Undo:
        """Take it out of this process. Before anything is built: what took hold of a method or a script keeps it."""
        undone = [edit.apply() for edit in self.edits]

        def undo() -> None:
            for put_back in reversed(undone):
                put_back()

        return undo
