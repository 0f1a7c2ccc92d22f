"""Every protection of COHERENCE.md that can be taken out: what is left without it is a cache that is "usually" coherent.

A mutant breaks the traces (COHERENCE-TRACES.md) that it names, which `tests/paths/test_mutants.py` holds it to. The fault drills
run real instances without a protection: `python -m tests.faults.mutant --without NAME serve …`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.doubles.mutant import Mutant
from tests.doubles.mutants_homes import HOMES
from tests.doubles.mutants_reading import READING
from tests.doubles.mutants_streams import STREAMS

MUTANTS: dict[str, Mutant] = {**READING, **HOMES, **STREAMS}


@contextmanager
def without(name: str) -> Iterator[None]:
    undo = MUTANTS[name].apply()
    try:
        yield
    finally:
        undo()
