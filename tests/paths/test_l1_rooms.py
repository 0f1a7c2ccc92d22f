"""The rooms of a topology hold on the paths of an instance: what others put takes nothing."""

from msgspec.structs import replace

from cachesvc.config.topology import L1Room
from cachesvc.model.entry import Entry, Key
from cachesvc.model.units import Part
from tests.paths.world import TOPOLOGY, Instance


def with_room(room: L1Room) -> Instance:
    """An instance with this room for `docs`; its L1 has 16 MiB."""
    docs = replace(TOPOLOGY.namespaces["docs"], l1=room)
    return Instance(topology=replace(TOPOLOGY, namespaces={**TOPOLOGY.namespaces, "docs": docs}))


async def test_what_others_put_takes_nothing_that_the_topology_guarantees() -> None:
    here = with_room(L1Room(guaranteed=Part("4MiB")))
    now = here.clock.now_us()
    docs = [Key.of("docs", f"k{number}") for number in range(30)]
    for number, key in enumerate(docs):
        here.l1.put(key, Entry(b"%d" % number, now, now + 10**7))
    for number in range(1000):
        here.l1.put(Key.of("aside", f"k{number}"), Entry(bytes(100_000), now, now + 10**7))
    found = here.reader.peek_many("docs", docs)
    assert [entry and entry.value for entry in found] == [b"%d" % number for number in range(30)]
    assert here.reader.peek("docs", docs[0]) is found[0]
    books = here.l1.by_namespace()
    assert books["docs"].guaranteed == 4 << 20
    assert books["aside"].evicted_by_own > 800
