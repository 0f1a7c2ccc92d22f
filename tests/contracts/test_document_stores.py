"""The contract of document stores, on every implementation."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from cachesvc.changes.document.contract import HISTORY, ConflictError, Document, DocumentStore, Version
from cachesvc.changes.document.etcd import EtcdDocument
from cachesvc.changes.document.file import FileDocument
from cachesvc.changes.document.queue import QueueDocument
from cachesvc.changes.document.queues import QueueDocuments
from cachesvc.model.errors import TierError, UnreadableAnswerError
from tests.doubles.etcd import ETCD, etcd_server
from tests.doubles.guarded_servers import guarded_redis
from tests.doubles.servers import RealServer, redis_server, valkey_server

Starter = Callable[[], AbstractContextManager[RealServer]]
KINDS: dict[str, Starter] = {
    "regions": redis_server,
    "etcd": etcd_server,
    "redis": redis_server,
    "valkey": valkey_server,
    "guarded": guarded_redis,
}


def document(number: int, about: str = "") -> Document:
    text = f"version: {number}\n# {about}\n"
    return Document.of(text, number, author="me", at_us=time.time_ns() // 1000, reason=f"because {about}")


class Bench:
    """One kind of store, empty at first."""

    def __init__(self, kind: str, server: RealServer | None, folder: Path, stack: AsyncExitStack) -> None:
        self.kind = kind
        self.server = server
        self._folder = folder
        self._stack = stack

    def open(self) -> DocumentStore:
        """A store as another process would open it."""
        made = self._made()
        self._stack.push_async_callback(made.close)
        return made

    def _made(self) -> DocumentStore:
        if self.server is None:
            return FileDocument(self._folder / "topology.yaml")
        if self.kind == "etcd":
            # Each test has a prefix of its own: etcd has nothing to empty it by.
            return EtcdDocument(f"etcd://{self.server.address}/tests/{self._folder.name}")
        url, access = self.server.entrance("queue")
        if self.kind != "regions":
            return QueueDocument(url, "eu", access)
        other = self.server.redis_url.replace("db=0", "db=1")
        return QueueDocuments({"eu": QueueDocument(url, "eu", access), "us": QueueDocument(other, "us")})


@pytest.fixture(scope="module", params=["file", *KINDS])
def started(request: pytest.FixtureRequest) -> Iterator[tuple[str, RealServer | None]]:
    if request.param == "file":
        yield "file", None
        return
    if request.param == "etcd" and ETCD is None:
        pytest.skip("no etcd on PATH (apt-get install etcd-server)")
    with KINDS[request.param]() as server:
        yield request.param, server


@pytest.fixture
async def bench(started: tuple[str, RealServer | None], tmp_path: Path) -> AsyncIterator[Bench]:
    kind, server = started
    if server is not None and kind != "etcd":
        admin = Redis.from_url(server.redis_url)
        await admin.flushall()
        await admin.aclose()
    async with AsyncExitStack() as stack:
        yield Bench(kind, server, tmp_path, stack)


async def until_seen(store: DocumentStore, known: Version | None) -> Document:
    async with asyncio.timeout(10):
        return await store.watch(known)


async def test_an_empty_store_has_nothing(bench: Bench) -> None:
    store = bench.open()
    assert (await store.newest(), await store.load(), list(await store.history())) == (None, None, [])
    assert await store.load(7) is None
    assert await store.look(None) is None


async def test_what_was_put_is_read_by_others_with_its_record(bench: Bench) -> None:
    first = document(7, "a first one, with ä and 🌍")
    assert list(await bench.open().compare_and_set(first, None)) == []
    store = bench.open()
    assert await store.newest() == first.version
    assert await store.load() == first
    assert list(await store.history()) == [first.version]
    assert first.version.number == 7
    assert first.version.author == "me"


async def test_a_writer_that_has_seen_another_version_changes_nothing(bench: Bench) -> None:
    mine, theirs = bench.open(), bench.open()
    await mine.compare_and_set(first := document(1), None)
    with pytest.raises(ConflictError) as conflict:
        await theirs.compare_and_set(document(1, "another"), None)
    assert conflict.value.found == first.version
    await mine.compare_and_set(second := document(2), first.version)
    with pytest.raises(ConflictError) as conflict:
        await theirs.compare_and_set(document(2, "another"), first.version)
    assert conflict.value.found == second.version
    assert await theirs.load() == second


async def test_of_many_writers_at_once_one_wins(bench: Bench) -> None:
    await bench.open().compare_and_set(first := document(1), None)
    writers = [bench.open() for _ in range(8)]
    for one in writers:
        await one.newest()  # eight handshakes at once would take longer than one call may
    tries = [one.compare_and_set(document(2, f"try {n}"), first.version) for n, one in enumerate(writers)]
    ended = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in ended) == 1
    assert all(isinstance(one, (ConflictError, list, tuple)) for one in ended)
    assert len(await bench.open().history()) == 2


async def test_old_versions_can_be_read_and_the_oldest_go(bench: Bench) -> None:
    store, seen, put = bench.open(), None, []
    for number in range(1, HISTORY + 4):
        put.append(document(number, "old"))
        await store.compare_and_set(put[-1], seen)
        seen = put[-1].version
    assert list(await store.history()) == [one.version for one in reversed(put[-HISTORY:])]
    assert await store.load(10) == put[9]
    assert await store.load(1) is None


async def test_a_watch_returns_the_next_version_and_waits_until_then(bench: Bench) -> None:
    store, writer = bench.open(), bench.open()
    await writer.compare_and_set(first := document(1), None)
    assert await until_seen(store, None) == first
    watching = asyncio.create_task(until_seen(store, first.version))
    await asyncio.sleep(0.05)
    assert not watching.done()
    await writer.compare_and_set(second := document(2), first.version)
    assert await watching == second
    assert store.trouble == ""
    assert set(store.said.values()) == {str(second.version)}


async def test_a_watch_that_is_cancelled_leaves_the_store_usable(bench: Bench) -> None:
    store = bench.open()
    await store.compare_and_set(first := document(1), None)
    for seconds in (0, 0.001, 0.05):
        watching = asyncio.create_task(store.watch(first.version))
        await asyncio.sleep(seconds)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
    assert await store.load() == first


async def test_a_reader_with_a_seed_takes_its_number_from_the_store_and_none_below(bench: Bench) -> None:
    if bench.kind == "file":
        pytest.skip("a file is no seed of itself")
    store = bench.open()
    await store.compare_and_set(stored := document(3), None)
    assert await store.look(store.seed(3)) == stored
    assert await store.look(store.seed(4)) is None


async def test_two_documents_of_one_number_are_refused_and_said(bench: Bench) -> None:
    if bench.kind == "file":
        pytest.skip("whoever can write a file may change it without another number")
    store = bench.open()
    await store.compare_and_set(document(3, "theirs"), None)
    mine = document(3, "mine")
    assert await store.look(mine.version) is None
    assert store.trouble.startswith("two topology documents have number 3: here is version 3 (")
    await store.compare_and_set(next_one := document(4), await store.newest())
    assert await store.look(mine.version) == next_one


# one implementation alone ------------------------------------------------------------------------


async def put_raw(url: str, *commands: tuple[Any, ...]) -> None:
    admin: Any = Redis.from_url(url)
    for command in commands:
        await admin.execute_command(*command)
    await admin.aclose()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[RealServer, RealServer]]:
    with redis_server() as eu, redis_server() as us:
        yield eu, us


@pytest.fixture
async def regions(servers: tuple[RealServer, RealServer]) -> AsyncIterator[dict[str, QueueDocument]]:
    for server in servers:
        await put_raw(server.redis_url, ("FLUSHALL",))
    found = {
        name: QueueDocument(one.redis_url, name) for name, one in zip(("eu", "us"), servers, strict=True)
    }
    yield found
    for one in found.values():
        await one.close()


async def test_a_text_that_is_not_its_records_is_not_taken(
    servers: tuple[RealServer, RealServer], regions: dict[str, QueueDocument]
) -> None:
    store = regions["eu"]
    await store.compare_and_set(document(3), None)
    await put_raw(servers[0].redis_url, ("HSET", "topology:documents", "3", "version: 3 # torn"))
    with pytest.raises(UnreadableAnswerError, match="does not have the hash of its record"):
        await store.load()
    assert await store.look(None) is None
    assert "does not have the hash" in store.said["queue eu"]


async def test_a_text_that_is_wrong_in_one_region_is_taken_from_the_other(
    servers: tuple[RealServer, RealServer], regions: dict[str, QueueDocument]
) -> None:
    store = QueueDocuments(regions)
    await store.compare_and_set(document(3), None)
    await put_raw(servers[0].redis_url, ("HSET", "topology:documents", "3", "version: 3 # torn"))
    assert await until_seen(store, None) == await regions["us"].load()
    assert await store.load() == await regions["us"].load()


async def test_records_of_another_form_are_an_answer_that_cannot_be_read(
    servers: tuple[RealServer, RealServer], regions: dict[str, QueueDocument]
) -> None:
    for said in ('{"number":', '{"number":"three"}', "\xff"):
        await put_raw(servers[0].redis_url, ("DEL", "topology:records"), ("LPUSH", "topology:records", said))
        with pytest.raises(TierError):
            await regions["eu"].newest()
        with pytest.raises(TierError):
            await regions["eu"].compare_and_set(document(9), None)


async def test_a_version_that_nobody_with_a_key_has_sealed_is_not_taken(
    servers: tuple[RealServer, RealServer], regions: dict[str, QueueDocument]
) -> None:
    """Somebody who writes to one queue can stop its region's place, and change nothing else."""
    old, new = b"o" * 16, b"n" * 16
    urls = {name: server.redis_url for name, server in zip(("eu", "us"), servers, strict=True)}
    sealed = QueueDocuments({name: QueueDocument(url, name, keys=(new, old)) for name, url in urls.items()})
    genuine = Document.of("version: 1\n", 1, keys=(old,))
    await sealed.compare_and_set(genuine, None)
    assert await sealed.look(None) == genuine
    for number, forged in enumerate((document(2, "forged"), Document.of("", 3, keys=(b"x" * 16,))), 2):
        await regions["eu"].compare_and_set(forged, await regions["eu"].newest())
        assert await sealed.look(genuine.version) is None
        assert f"version {number} is not sealed by a key" in sealed.said["eu"]
        assert sealed.trouble.startswith("queue eu: version")
        assert await sealed.load() == genuine
    following = Document.of("version: 4\n", 4, keys=(new,))
    missed = await sealed.compare_and_set(following, genuine.version)
    assert [one.where for one in missed] == ["queue eu"]
    assert await sealed.look(genuine.version) == following
    await sealed.close()


async def test_a_seal_is_of_the_whole_record() -> None:
    version = Document.of("version: 1\n", 1, author="ann", at_us=5, reason="why", keys=(b"k" * 16,)).version
    assert version.is_sealed((b"k" * 16,))
    for field, other in (("number", 2), ("hash", "0"), ("author", "bob"), ("at_us", 6), ("reason", "")):
        assert not replace(version, **{field: other}).is_sealed((b"k" * 16,))


async def test_a_region_that_is_away_misses_a_version_and_is_brought_it(
    servers: tuple[RealServer, RealServer], regions: dict[str, QueueDocument]
) -> None:
    store, follower = QueueDocuments(regions), QueueDocuments(regions)
    await store.compare_and_set(first := document(1), None)
    await asyncio.to_thread(servers[1].kill)
    missed = await store.compare_and_set(second := document(2), first.version)
    assert [one.where for one in missed] == ["queue us"]
    assert await until_seen(follower, first.version) == second
    await asyncio.to_thread(servers[1].restart)  # it has lost even the first one
    assert await regions["us"].newest() is None
    await follower.look(second.version)
    assert await regions["us"].newest() is None  # nobody has found the version right yet
    follower.accepted(second)
    await follower.look(second.version)
    assert await regions["us"].load() == second


async def test_two_texts_of_one_number_in_two_regions_are_both_refused(
    regions: dict[str, QueueDocument],
) -> None:
    """Two writers, each of whom reached the other region only."""
    await regions["eu"].compare_and_set(document(3, "one"), None)
    await regions["us"].compare_and_set(document(3, "other"), None)
    store = QueueDocuments(regions)
    assert await store.look(Version(2, "")) is None
    assert store.trouble.startswith("two topology documents have number 3: ")
    assert len(await store.history()) == 2
    await store.compare_and_set(fourth := document(4), await store.newest())
    assert await store.look(Version(2, "")) == fourth
    store.accepted(fourth)
    assert store.trouble == ""
    assert [await one.load() for one in regions.values()] == [fourth, fourth]


async def test_a_configmap_that_is_swapped_is_another_document(tmp_path: Path) -> None:
    """Kubernetes swaps `..data`, a symlink to a directory, in one step."""
    for name, number in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "topology.yaml").write_text(document(number).text)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "topology.yaml").symlink_to("..data/topology.yaml")
    store = FileDocument(tmp_path / "topology.yaml")
    first = await until_seen(store, None)
    assert first.version.number == 1
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "..data")
    assert (await until_seen(store, first.version)).version.number == 2
    (tmp_path / "..data").unlink()
    assert await store.look(None) is None
    assert "cannot be read: No such file" in store.trouble


async def test_a_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = FileDocument(tmp_path / "nowhere" / "topology.yaml")
    with pytest.raises(TierError, match="cannot be written: No such file or directory"):
        await store.compare_and_set(document(1), None)


async def test_a_file_keeps_its_mode_and_its_history_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(document(1).text)
    path.chmod(0o640)
    store = FileDocument(path)
    await store.compare_and_set(document(2), await store.newest())
    modes = {
        one.name: one.stat().st_mode & 0o777
        for one in (path, *(tmp_path / "topology.yaml.history").iterdir())
    }
    assert modes == {"topology.yaml": 0o640, "1.json": 0o600, "2.json": 0o600, "lock": 0o600}


async def test_another_member_of_etcd_is_asked_while_one_is_away(
    started: tuple[str, RealServer | None],
) -> None:
    kind, server = started
    if kind != "etcd" or server is None:
        pytest.skip("about etcd alone")
    store = EtcdDocument(f"etcd://127.0.0.1:1,{server.address}/two-members")
    await store.compare_and_set(first := document(1), None)
    assert await store.load() == first
    await store.close()
    away = EtcdDocument("etcd://127.0.0.1:1")
    with pytest.raises(TierError, match=r"etcd 127\.0\.0\.1:1: "):
        await away.load()
    assert await away.look(None) is None
    assert away.said["etcd 127.0.0.1:1"].startswith("out of reach: ")
    await away.close()
