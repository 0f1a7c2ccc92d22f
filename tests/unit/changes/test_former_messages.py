"""Messages between instances are, byte for byte, those of the former version.

So both read each other's, in a fleet that is upgraded one by one. What is recorded was written by
the former version: `python -P tests/unit/changes/test_former_messages.py`, with its package in
PYTHONPATH. Another form of a message is a second file beside this one, which both versions must
read, and a fleet's second upgrade begins to write it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cachesvc.changes.broadcast.events import Heartbeat, Reset, encode, pairs, rendered
from cachesvc.changes.contract import Done
from cachesvc.changes.events import cloudevents
from cachesvc.changes.journal import records
from cachesvc.changes.redis import fence_items
from cachesvc.changes.relay.frames import FrameReader, frame_of
from cachesvc.model.change import Change
from cachesvc.model.fence import Fence

RECORDED = Path(__file__).parents[2] / "snapshots" / "messages-1.json"
AT = 1_700_000_000_000_000
AFTER = "1700000000000-3@5f3a9c01"
MS = AT // 1000

FENCES = [
    Fence(1, AT),
    Fence((1 << 64) - 1, AT + 1, soft=True),
    Fence(3, AT, namespace="pages"),
    Fence(4, AT, soft=True, namespace="users"),
    Fence(5, AT, soft=True, over=60_000_000),
    Fence(6, AT, soft=True, namespace="pages", over=1),
    Fence(7, AT, unapplied=True, placement=(1 << 64) - 1, issuers=(("eu-1", 0xABC), ("us-1", 1))),
]
CHANGES = [
    Change("pages", keys=("{ws-7}:block:42", "ключ"), tags=("user:9",)),
    Change("pages", all=True, soft=True),
    Change("users", tags=("t",), soft=True, over="5m"),
]
JOURNAL: list[records.Record] = [
    records.Opening("word", "eu", ("eu-1", "us-1")),
    records.Begun("id-1", CHANGES[0], AT),
    records.Fenced(tuple(FENCES), Done("id-1"), AT),
    records.Ended(("id-1",)),
]


def written() -> Mapping[str, Sequence[Sequence[bytes]]]:
    """The messages as this version writes them: for each kind some, each in its parts."""
    items = fence_items.encode(FENCES, report=True)
    fields = [dict(zip(one[::2], one[1::2], strict=True)) for one in items]
    ids = [(f"{MS}-{nth}".encode(), one) for nth, one in enumerate(fields, 4)]
    events = [
        cloudevents.encode(one, id_="id-1", source="/eu-a", held_until_us=AT * (nth % 2))
        for nth, one in enumerate(CHANGES)
    ]
    return {
        "fences": items,
        "heartbeat": [fence_items.heartbeat(AT)],
        "paced fences of a queue": [[fence_items.paced_member(one).encode()] for one in FENCES if one.over],
        "changes": [[one] for one in events],
        "relay": [[frame_of(AFTER, ids)]],
        "journal": [[records.framed(one)] for one in JOURNAL],
        "stream": [
            [rendered("fences", f"eu={AFTER}", encode(pairs(FENCES)))],
            [rendered("heartbeat", f"eu={AFTER}", encode(Heartbeat({"eu": AT}, 1, AT)))],
            [rendered("reset", f"eu={AFTER}", encode(Reset(AT, "why")))],
        ],
    }


def recorded() -> Mapping[str, Sequence[Sequence[bytes]]]:
    found = json.loads(RECORDED.read_text())
    return {kind: [[bytes.fromhex(part) for part in one] for one in some] for kind, some in found.items()}


def test_the_former_version_would_have_written_the_same() -> None:
    assert written() == recorded()


def test_what_the_former_version_wrote_is_read() -> None:
    found = recorded()
    items = [dict(zip(one[::2], one[1::2], strict=True)) for one in found["fences"]]
    read = fence_items.decode([(MS, one) for one in items])
    assert sorted(read.fences, key=lambda one: one.digest) == sorted(FENCES, key=lambda one: one.digest)
    assert (read.unreadable, read.report) == (0, True)
    (beat,) = found["heartbeat"]
    assert fence_items.decode([(MS, {beat[0]: beat[1]})]).complete_to == AT
    members = [member for (member,) in found["paced fences of a queue"]]
    assert fence_items.paced_fences(members) == [one for one in FENCES if one.over]
    changes = [cloudevents.decode("1-0", event).changes for (event,) in found["changes"]]
    assert changes == [(one,) for one in CHANGES]
    ((frame,),) = found["relay"]
    (told,) = FrameReader("relay").feed(frame)
    assert (told.after, [fields for _, fields in told.items]) == (AFTER, items)
    journal = records.read(records.MAGIC + b"".join(one for (one,) in found["journal"]))
    assert (list(journal.records), journal.is_whole) == (JOURNAL, True)


if __name__ == "__main__":
    print(json.dumps({kind: [[p.hex() for p in one] for one in some] for kind, some in written().items()}))
