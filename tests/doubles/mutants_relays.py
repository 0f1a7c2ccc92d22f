"""Protections of relays: what is believed of what another instance says of `fences`."""

from tests.doubles.edits import InPython
from tests.doubles.mutant import Mutant

RELAYS: dict[str, Mutant] = {
    "frames-that-fit": Mutant(
        "a relay tells what it has, wherever its follower is, and the follower takes it",
        (67,),
        (
            InPython(
                "cachesvc.changes.relay.relay:Relay._entry_after",
                "if position_of(entry.after) <= asked), None,",
                "if position_of(entry.after) <= asked), self._entries[0],",
            ),
            InPython(
                "cachesvc.changes.relay.relay:_Entry.frame_after",
                "position == self.after",
                "position_of(position) <= position_of(self.after)",
            ),
            InPython(
                "cachesvc.changes.relay.follower:RelayedFollower._deliver",
                "frame.after != self._position",
                "False",
            ),
        ),
    ),
    "epoch-of-a-relay": Mutant(
        "a relay and its follower compare positions, whatever server they are of",
        (68,),
        (
            InPython(
                "cachesvc.changes.relay.relay:Relay.next_of",
                "epoch_of(position) != epoch_of(self._newest)",
                "False",
            ),
            InPython(
                "cachesvc.changes.relay.relay:_Entry.frame_after",
                "position == self.after",
                "position_of(position) == position_of(self.after)",
            ),
            InPython(
                "cachesvc.changes.relay.follower:RelayedFollower._deliver",
                "frame.after != self._position",
                "position_of(frame.after) != position_of(self._position)",
            ),
        ),
    ),
    "silent-relay": Mutant(
        "a follower waits for its relay, however long that says nothing",
        (69,),
        (
            InPython(
                "cachesvc.changes.relay.follower:RelayedFollower.__init__",
                "SILENT_BEATS * heartbeat_seconds",
                "86400.0",
            ),
        ),
    ),
    "items-as-they-stand": Mutant(
        "a relay hands on what it can read itself",
        (70,),
        (
            InPython(
                "cachesvc.changes.relay.relay:Relay.take",
                """\
    if not batch.items:
        if batch.gap:
            self.begin(batch.position)
        return
    if after != self._newest:
        self.begin(after)
""",
                """\
    if batch.unreadable or not batch.items:
        return
    after = self._newest
""",
            ),
        ),
    ),
    "spared-in-time": Mutant(
        "a worker leaves changes to the first one of its host, however far behind that is",
        (71,),
        (
            InPython(
                "cachesvc.changes.relay.follower:RelayedFollower.is_served_by",
                "bound_us < self._timely_us",
                "True",
            ),
        ),
    ),
}
