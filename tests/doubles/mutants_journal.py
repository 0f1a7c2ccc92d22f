"""Protections of what an instance keeps in its journal while the region's queue is away."""

from tests.doubles.edits import InPython
from tests.doubles.mutant import Mutant

JOURNAL: dict[str, Mutant] = {
    "journal-first": Mutant(
        "a change is applied before it is in the journal",
        (72,),
        (InPython("cachesvc.changes.journal.journal:Journal.begin", "await self._write(record)", "pass"),),
    ),
    "journal-restart": Mutant(
        "an instance does not honour after its restart what its journal has",
        (73,),
        (
            InPython(
                "cachesvc.changes.journal.journal:Journal.start",
                "fence for entry in self._entries.values() for fence in entry.fences",
                "",
            ),
        ),
    ),
    "journal-note": Mutant(
        "a consumer sends heartbeats although an instance has changes that are not announced",
        (74,),
        (InPython("cachesvc.changes.consume:Consumer._beat", "self._rivals.keeps_unannounced()", "False"),),
    ),
    "journal-note-stays": Mutant(
        "the note that something is not announced ends with its instance",
        (74,),
        (
            InPython(
                "cachesvc.changes.journal.journal:Journal.use",
                "self._outlived_us if self._entries else 0",
                "1 if self._entries else 0",
            ),
        ),
    ),
    "journal-wait": Mutant(
        "a wait is over when the change is in the journal",
        (74,),
        (
            InPython(
                "cachesvc.paths.invalidate:Invalidator.invalidate",
                "reached=is_announced and not missing",
                "reached=True",
            ),
        ),
    ),
    "journal-end": Mutant(
        "what cannot be read of a journal is left out",
        (75,),
        (InPython("cachesvc.changes.journal.journal:Journal.start", "not found.is_whole", "False"),),
    ),
    "journal-first-at": Mutant(
        "what the journal has is applied anew when it is announced, with a new `at`",
        (76,),
        (InPython("cachesvc.changes.journal.journal:Journal._announce", "entry.done is None", "True"),),
    ),
}
