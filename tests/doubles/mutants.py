"""Every protection of docs/coherence.md that can be taken out.

Without one of them the cache is only "usually" coherent. A mutant breaks the traces of
docs/coherence.md that it names; `tests/paths/test_mutants.py` proves that it does. The fault
drills run real instances without a protection:

    python -m tests.faults.mutant --without NAME serve …
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.doubles.mutant import Mutant
from tests.doubles.mutants_homes import HOMES
from tests.doubles.mutants_journal import JOURNAL
from tests.doubles.mutants_reading import READING
from tests.doubles.mutants_relays import RELAYS
from tests.doubles.mutants_streams import STREAMS

MUTANTS: dict[str, Mutant] = {**READING, **HOMES, **STREAMS, **JOURNAL, **RELAYS}


@contextmanager
def without(name: str) -> Iterator[None]:
    """Runs the block without the protection `name`."""
    undo = MUTANTS[name].apply()
    try:
        yield
    finally:
        undo()
