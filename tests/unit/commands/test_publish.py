"""`cachesvc publish`: what it puts on the queue, and its refusals: a line, no traceback, no password."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from cachesvc.changes.events.event_parser import EventParser
from cachesvc.cli import main
from cachesvc.config.addresses import REDIS_URLS
from cachesvc.config.document import read_struct
from cachesvc.config.topology import Namespace
from cachesvc.model.change import Change
from cachesvc.model.units import Duration
from tests.doubles.servers import RealServer, redis_server

HOUR = Duration.parse("1h")


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def queue(server: RealServer) -> Iterator["Queue"]:
    with Redis.from_url(server.redis_url, protocol=2) as redis:
        redis.flushall()
        yield Queue(server.redis_url, redis)


class Queue:
    """The stream `changes` of a real server, as an instance reads it."""

    def __init__(self, url: str, redis: Redis) -> None:
        self.url = url
        self._redis = redis
        self._read = EventParser(
            {name: read_struct({"owner": "web"}, Namespace) for name in ("pages", "docs")}, 1000, HOUR
        )

    def items(self) -> list[Any]:
        found: Any = self._redis.xrange("changes")
        return [(id_.decode(), fields) for id_, fields in found]

    def changes(self) -> list[Change]:
        opened = [self._read(id_, fields) for id_, fields in self.items()]
        assert [change.reason for change in opened] == [""] * len(opened)
        return [change for found in opened for change in found.changes]

    def publish(self, *arguments: str) -> int:
        return main(["publish", *arguments, "--queue", self.url], {})


@pytest.fixture
def topology(tmp_path: Path, server: RealServer) -> Path:
    document = {
        "version": 1,
        "regions": {"eu": {"queue": server.redis_url}, "us": {"queue": "redis://:hunter2@127.0.0.1:1/0"}},
        "cells": {"c1": {"region": "eu", "url": "redis://127.0.0.1:2/0"}},
        "namespaces": {"pages": {"owner": "web"}, "docs": {"owner": "docs"}},
    }
    path = tmp_path / "topology.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["--key", "{ws-7}:a", "--key", "b"], Change("pages", ("{ws-7}:a", "b"))),
        (["--tag", "t", "--soft"], Change("pages", tags=("t",), soft=True)),
        (["--all", "--confirm", "pages", "--over", "5m"], Change("pages", all=True, over="5m")),
    ],
)
def test_a_change_is_announced_as_it_was_said(queue: Queue, arguments: list[str], change: Change) -> None:
    assert queue.publish("pages", *arguments) == 0
    assert queue.changes() == [change]


def test_the_event_says_who_it_was(queue: Queue) -> None:
    queue.publish("pages", "--key", "a", "--source", "/runbooks/42")
    ((_, fields),) = queue.items()
    assert json.loads(fields[b"event"])["source"] == "/runbooks/42"


def test_the_event_says_in_which_trace_it_changed(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    queue.publish("pages", "--key", "a", "--traceparent", traceparent)
    ((_, fields),) = queue.items()
    assert json.loads(fields[b"event"])["traceparent"] == traceparent
    assert queue.publish("pages", "--key", "a", "--traceparent", "yes") == 2
    assert "--traceparent" in capsys.readouterr().err


def test_the_receipt_is_printed_with_its_region(
    queue: Queue, topology: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(
            ["publish", "pages", "--key", "a"], {"CACHESVC_TOPOLOGY": str(topology), "CACHESVC_REGION": "eu"}
        )
        == 0
    )
    assert queue.publish("pages", "--key", "b") == 0
    first, second = (id_ for id_, _ in queue.items())
    assert capsys.readouterr().out.splitlines() == [f"eu:{first}", second]


LINES = [
    {"namespace": "pages", "keys": ["a"]},
    {
        "specversion": "1.0",
        "id": "9",
        "source": "/s",
        "type": "dev.cachesvc.change.v1",
        "data": {"namespace": "docs", "tags": ["t"]},
    },
]


def test_a_file_holds_changes_and_events_one_on_each_line(queue: Queue, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("\n\n".join(json.dumps(line) for line in LINES))
    assert queue.publish("--file", str(file)) == 0
    assert queue.changes() == [Change("pages", ("a",)), Change("docs", tags=("t",))]
    assert json.loads(queue.items()[1][1][b"event"]) == LINES[1]


def test_a_long_file_is_announced_whole_and_in_order(queue: Queue, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(
        "".join(json.dumps({"namespace": "pages", "keys": [f"key-{i}"]}) + "\n" for i in range(5000))
    )
    assert queue.publish("--file", str(file)) == 0
    assert [change.keys for change in queue.changes()] == [(f"key-{i}",) for i in range(5000)]


def test_standard_input_is_a_file(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.BytesIO(b'{"namespace": "pages", "keys": ["a"]}\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(lines)))
    assert queue.publish("--file", "-") == 0
    assert queue.changes() == [Change("pages", ("a",))]


REFUSALS = [
    (["--key", "a"], "NAMESPACE: is not given"),
    (["pages"], "publish: names no keys, no tags and not `all`"),
    (["pages", "--key", ""], "publish: key 0: a key has 1 to 1024 bytes, this one has 0"),
    (["pages", "--tag", "é"], "publish: tag 0: a tag has 1 to 256 printable ASCII characters"),
    (["pages", "--key", "a", "--over", "5min"], "publish: over: '5min' is not a duration"),
    (["pages", "--all"], "publish: this is everything in 'pages': say --confirm pages"),
    (["pages", "--all", "--confirm", "docs"], "publish: this is everything in 'pages': say --confirm pages"),
    (["pages", "--key", "a", "--source", ""], "--source: is empty"),
    (["Pages", "--key", "a"], "publish: 'Pages' is no namespace name"),
    (["pages", *["--key=a"] * 1001], "publish: 1001 keys and tags, at most 1000 in one event"),
    (["pages", "--file", "-"], "--file: its lines say what changed: leave out NAMESPACE"),
    (["--file", "/nowhere"], "/nowhere: cannot be read: No such file or directory"),
    (["--file", "/dev/null"], "/dev/null: holds no events"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_a_mistake_is_said_in_a_line_and_nothing_is_announced(
    queue: Queue, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert queue.publish(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cachesvc: {message}")
    assert len(said.splitlines()) == 1
    assert queue.items() == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "neither a change nor a CloudEvent of one: Input data was truncated"),
        (
            '{"namespace": "pages", "kyes": ["a"]}',
            "neither a change nor a CloudEvent of one: Object contains unknown field `kyes`",
        ),
        ('{"specversion": "1.0"}', "Object missing required field `id`"),
        ('{"namespace": "pages"}', "names no keys, no tags and not `all`"),
        ('{"namespace": "pages", "all": true}', "this is everything in 'pages': say --confirm pages"),
    ],
)
def test_a_bad_line_is_named(
    queue: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(json.dumps(LINES[0]) + "\n\n" + line)
    assert queue.publish("--file", str(file)) == 2
    assert capsys.readouterr().err.startswith(f"cachesvc: {file}:3: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["page", "--key", "a", "--region", "eu"], "publish: no namespace 'page' (did you mean 'pages'?)"),
        (["pages", "--key", "a", "--region", "euu"], "--region: no region 'euu' (did you mean 'eu'?)"),
        (["pages", "--key", "a"], "--region: no region '' (there is eu, us)"),
    ],
)
def test_the_topology_knows_namespaces_and_regions(
    topology: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["publish", *arguments, "--topology", str(topology)], {}) == 2
    assert capsys.readouterr().err == f"cachesvc: {message}\n"


def test_without_a_queue_there_is_nowhere_to_announce(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "pages", "--key", "a"], {}) == 2
    assert capsys.readouterr().err.startswith("cachesvc: --queue: is not given, and no --topology")


def test_a_queue_out_of_reach_is_a_failure_and_its_password_stays_a_secret(
    topology: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", "pages", "--key", "a", "--topology", str(topology), "--region", "us"], {}) == 1
    said = capsys.readouterr().err
    assert said.startswith("cachesvc: queue at 127.0.0.1:1: ")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "url", ["http://:hunter2@h/0", "redis://:hunter2@h:port/0", "redis://h:hunter2", "redis://u:hun[ter2@h"]
)
def test_a_url_that_is_none_is_a_mistake_and_not_repeated(
    capsys: pytest.CaptureFixture[str], url: str
) -> None:
    assert main(["publish", "pages", "--key", "a", "--queue", url], {}) == 2
    assert capsys.readouterr().err == f"cachesvc: --queue: must be {REDIS_URLS}\n"


def test_a_queue_that_refuses_is_a_failure(
    queue: Queue, capsys: pytest.CaptureFixture[str], server: RealServer
) -> None:
    with Redis.from_url(server.redis_url) as redis:
        redis.set("changes", "no stream")
    assert queue.publish("pages", "--key", "a") == 1
    assert "WRONGTYPE" in capsys.readouterr().err
