"""A mistake of a person ends every command with a sentence and an exit code, and never with a traceback."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from redis import Redis

from cachesvc.cli import main
from cachesvc.commands.exit_codes import INTERRUPTED, OUTPUT_CLOSED
from tests.doubles.servers import RealServer, redis_server

TOPOLOGY = "config/two-regions.yaml"
SOUND = """
version: 1
regions: {eu: {queue: "redis://h/0", instances: {a: "http://h:1"}}}
cells: {c1: {region: eu, url: "redis://h/1"}}
namespaces: {pages: {owner: web}}
"""


def run(*words: str, **environ: str) -> int:
    """The exit code of a command in this process, also if the parser ends it."""
    try:
        return main(words, environ)
    except SystemExit as ended:
        return int(ended.code or 0)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


# Arguments ---------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, ...]] = [
    (),
    ("sever",),
    ("serve", "--topolgy", "x"),
    ("serve", "--topology"),
    ("serve", "now"),
    ("serve", "--topology", "nowhere.yaml"),
    ("check-config", "--config", "/"),
    ("check-config", "--topology", "\udcff.yaml"),
    ("publish",),
    ("publish", "pages"),
    ("publish", "pages", "--key", "a"),
    ("publish", "pages", "--key", "a", "--topology", TOPOLOGY),
    ("publish", "pages", "--key", "a", "--topology", TOPOLOGY, "--region", "mars"),
    ("publish", "page", "--key", "a", "--topology", TOPOLOGY, "--region", "eu"),
    ("publish", "pages", "--key", "a", "--queue", "h:6379"),
    ("publish", "pages", "--key", "a", "--queue", "redis://h/0?foo=1"),
    ("publish", "pages", "--key", "a", "--queue", "redis://h:70000"),
    ("publish", "pages", "--key", "\udcff", "--queue", "redis://h"),
    ("publish", "\udcff", "--key", "a", "--queue", "redis://h"),
    ("publish", "pages", "--tag", "\udcff", "--queue", "redis://h"),
    ("publish", "pages", "--key", "", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a\nb", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a", "--source", "\udcff", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a", "--source", "", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a", "--traceparent", "x", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a", "--over", "soon", "--queue", "redis://h"),
    ("publish", "pages", "--key", "a", "--over", "9" * 400 + "d", "--queue", "redis://h"),
    ("publish", "pages", "--all", "--queue", "redis://h"),
    ("publish", "--file", "nowhere", "--queue", "redis://h"),
    ("publish", "--file", "/", "--queue", "redis://h"),
    ("publish", "--file", "README.md", "--queue", "redis://h"),
    ("publish", "pages", "--file", "README.md", "--queue", "redis://h"),
    ("check",),
    ("check", "--topology", TOPOLOGY, "--rate", "nan"),
    ("check", "--topology", TOPOLOGY, "--rate", "inf"),
    ("check", "--topology", TOPOLOGY, "--rate", "fast"),
    ("check", "--topology", TOPOLOGY, "--keys", "0"),
    ("check", "--topology", TOPOLOGY, "--keys", "10000000000"),
    ("check", "--topology", TOPOLOGY, "--clients", "-1"),
    ("check", "--topology", TOPOLOGY, "--clients", "10000000000"),
    ("check", "--topology", TOPOLOGY, "--duration", "9" * 400 + "d"),
    ("check", "--topology", TOPOLOGY, "--duration", "1"),
    ("check", "--topology", TOPOLOGY, "--read-share", "2"),
    ("check", "--topology", TOPOLOGY, "--read-share", "nan"),
    ("check", "--topology", TOPOLOGY, "--origin-listen", "here"),
    ("check", "--topology", TOPOLOGY, "--origin-listen", "h:70000"),
    ("check", "--topology", TOPOLOGY, "--namespace", "nobody's"),
    ("check", "--topology", TOPOLOGY, "--watch", "--metrics-listen", "h:x"),
    ("explain",),
    ("explain", "pages"),
    ("explain", "pages", ""),
    ("explain", "pages", "a\x00"),
    ("explain", "pages", "\udcff"),
    ("explain", "pages", "a", "b"),
    ("explain", "pages", "a", "--url", "h:1"),
    ("explain", "pages", "a", "--url", "http://h:99999"),
    ("explain", "pages", "a", "--url", "http://"),
    ("explain", "pages", "a", "--url", "http://[::1"),
    ("explain", "pages", "a", "--url", "http://h h"),
    ("explain", "pages", "a", "--token", "a\nb"),
    ("explain", "pages", "a", "--token", "é"),
    ("explain", "page", "a", "--topology", TOPOLOGY),
    ("top", "--url", "h:1"),
    ("top", "--url", "http://h:99999"),
    ("top", "--url", "http://u:p@h:0"),
    ("top", "--interval", "0s"),
    ("top", "--interval", "soon"),
    ("top", "--interval", "9" * 400 + "d"),
    ("top", "--debug-token", "a\nb"),
    ("top", "--topology", "nowhere.yaml"),
]


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words)[:60])
def test_a_mistake_in_the_command_line_is_said_in_a_sentence(
    words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    said = capsys.readouterr()
    assert not said.out
    (last,) = (line for line in said.err.splitlines() if line.startswith("cachesvc"))
    assert ": " in last
    assert "Traceback" not in said.err
    assert len(said.err) < 3000


@pytest.mark.parametrize("command", ["publish", "explain", "top", "check", "serve", "check-config"])
def test_a_mistake_in_the_topology_names_the_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(SOUND.replace("version: 1", "version: 0").replace("owner: web", "owner: ''"))
    words = {"publish": ["pages", "--key", "a", "--region", "eu"], "explain": ["pages", "a"]}.get(command, [])
    assert run(command, *words, "--topology", str(path), CACHESVC_REGION="eu") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"cachesvc: {path}: $.version: must be 1 or more, and grow with every change",
        f"cachesvc: {path}: $.namespaces.pages.owner: is empty: name the team to call",
    ]


# check-config --------------------------------------------------------------------------------------


def test_the_shared_document_is_checked_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check-config", "--topology", TOPOLOGY) == 0
    assert capsys.readouterr().out == (
        "service: every setting has its default; it says no region, so none was looked for in the topology\n"
        "topology: ok, version 1, 2 regions, 4 cells, 4 namespaces\n"
    )


def test_both_documents_and_what_does_not_fit_between_them_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, topology = tmp_path / "service.yaml", tmp_path / "topology.yaml"
    service.write_text("region: eu\ninstance: b\nserver: {prt: 1, request_timeout: 2s}\nl3: {retention: 1h}")
    topology.write_text(
        SOUND.replace("}}}\ncells", '}}, us: {queue: "redis://h/7"}}\ncells').replace(
            "owner: web", "owner: '', ttl: 2h, max_value: 5MiB"
        )
    )
    assert run("check-config", "--config", str(service), "--topology", str(topology)) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1:3] for line in said] == [
        [str(service), "$.server.prt"],
        [str(topology), "$.namespaces.pages.owner"],
        [str(topology), "$.namespaces.pages.ttl"],
        [str(service), "$.instance"],
        [str(topology), "$.regions.us"],
        [str(topology), "$.namespaces.pages.max_value"],
        [str(topology), "$.namespaces.pages.lease_wait"],
    ]
    assert "'b' is none of the instances of 'eu' in the topology" in said[3]
    assert "has no cell" in said[4]
    assert "is above server.max_body of the service document (4194304 bytes)" in said[5]
    assert "is above server.request_timeout of the service document (2 s)" in said[6]


@pytest.mark.parametrize("field", ["soft_deadline: 11s, hard_deadline: 12s", "hard_deadline: 11s"])
def test_deadlines_of_an_origin_beyond_that_of_the_request_are_found(
    field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(
        SOUND.replace("owner: web", f'owner: web, lease: 20s, origin: {{url: "http://h/{{key}}", {field}}}')
    )
    assert run("check-config", "--topology", str(path)) == 2
    told = [line.split(": ")[2].rpartition(".")[2] for line in capsys.readouterr().err.splitlines()]
    assert told == [one.split(":")[0] for one in field.split(", ")]


def test_an_instance_starts_with_what_is_only_unlikely_and_logs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(SOUND.replace("owner: web", "owner: web, max_value: 5MiB"))
    monkeypatch.setattr("cachesvc.telemetry.logs.logs.set_up", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    async def serve(*_: object, **__: object) -> None: ...

    monkeypatch.setattr("cachesvc.app.instance.serve", serve)
    assert run("serve", "--topology", str(path), CACHESVC_REGION="eu", CACHESVC_INSTANCE="z") == 0
    assert [
        record.message.split(": ")[1 if "yaml" in record.message else 0] for record in caplog.records
    ] == [
        "$.instance",
        "$.namespaces.pages.max_value",
    ]


@pytest.mark.parametrize(
    ("host", "more", "is_said"),
    [
        ("192.0.2.1", f"named: {{a: {{scopes: ['read:*'], tokens: [{{sha256: '{'0' * 64}'}}]}}}}", True),
        ("127.0.0.1", f"named: {{a: {{scopes: ['read:*'], tokens: [{{sha256: '{'0' * 64}'}}]}}}}", False),
        ("192.0.2.1", "anonymous: ['read:*']", False),
    ],
)
def test_tokens_in_clear_text_are_warned_of(
    host: str,
    more: str,
    is_said: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(f"{SOUND}\ncallers: {{{more}}}\n")
    monkeypatch.setattr("cachesvc.telemetry.logs.logs.set_up", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    async def serve(*_: object, **__: object) -> None: ...

    monkeypatch.setattr("cachesvc.app.instance.serve", serve)
    named = {"CACHESVC_REGION": "eu", "CACHESVC_SERVER_HOST": host}
    assert run("serve", "--topology", str(path), **named) == 0
    assert [one.message.startswith(f"server speaks plain HTTP at {host!r}") for one in caplog.records] == (
        [True] if is_said else []
    )


# Servers of another kind ---------------------------------------------------------------------------


class Stranger(BaseHTTPRequestHandler):
    """Answers every request with the same bytes."""

    status, kind, body = 200, "text/html", b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>404</html>"),
        (200, b"<html>hello</html>"),
        (200, b'{"verdict": '),
        (200, b'{"verdict": 7}'),
        (200, b"[" * 100_000),
        (200, b"\xff\x00"),
        (200, b""),
        (500, b'{"detail": 5}'),
        (302, b""),
    ],
)
def test_a_server_of_another_kind_is_no_instance(
    stranger: str,
    status: int,
    body: bytes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Stranger, "status", status)
    monkeypatch.setattr(Stranger, "body", body)
    assert run("explain", "pages", "a", "--url", stranger) == 1
    said = capsys.readouterr()
    assert said.err.startswith("cachesvc: ")
    assert len(said.err.splitlines()) == 1
    assert run("top", "--once", "--url", stranger, "--interval", "1ms") == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{stranger} does not answer (")
    assert not said.err


@pytest.mark.parametrize("words", [("explain", "pages", "a"), ("publish", "pages", "--key", "a")])
def test_nobody_at_an_address_is_said(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    where = (
        ("--url", f"http://127.0.0.1:{port}")
        if words[0] == "explain"
        else ("--queue", f"redis://127.0.0.1:{port}")
    )
    assert run(*words, *where) == 1
    assert capsys.readouterr().err.startswith("cachesvc: ")


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"CACHESVC_SERVER_HOST": "192.0.2.1"}, "cannot be served: "),
        ({"CACHESVC_SERVER_HOST": "nobody.invalid"}, "cannot be served: "),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_said(
    setting: dict[str, str],
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topology = tmp_path / "topology.yaml"
    topology.write_text(Path(TOPOLOGY).read_text(encoding="utf-8") + "\ncallers: {anonymous: []}\n")

    async def serve(service: object, *_: object, **__: object) -> None:
        host = setting["CACHESVC_SERVER_HOST"]
        await asyncio.get_running_loop().create_server(asyncio.Protocol, host, free_port())

    monkeypatch.setattr("cachesvc.app.instance.serve", serve)
    monkeypatch.setattr("cachesvc.telemetry.logs.logs.set_up", lambda *_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run("serve", "--topology", str(topology), CACHESVC_REGION="eu", **setting) == 1
    said = capsys.readouterr().err
    assert why in said
    assert len(said.splitlines()) == 1


# Output that nobody reads, and Ctrl-C ---------------------------------------------------------------


@pytest.fixture(scope="module")
def queue() -> Iterator[RealServer]:
    with redis_server() as running:
        yield running


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cachesvc", *words]


def test_changes_are_announced_whether_or_not_anybody_reads_the_receipts(
    queue: RealServer, tmp_path: Path
) -> None:
    lines = tmp_path / "changes"
    lines.write_text('{"namespace": "pages", "keys": ["a"]}\n' * 20_000)
    with subprocess.Popen(
        command("publish", "--file", str(lines), "--queue", queue.redis_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (OUTPUT_CLOSED, b"")
    with Redis.from_url(queue.redis_url) as redis:
        assert redis.xlen("changes") == 20_000


@pytest.mark.parametrize(
    "words", [("check-config", "--topology", TOPOLOGY), ("--help",), ("check", "--help")], ids=" ".join
)
def test_a_reader_that_left_ends_a_command_without_a_word(words: Sequence[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(command(*words), stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    # argparse takes a write that fails for done, where Python does not buffer.
    assert ended.returncode == OUTPUT_CLOSED or ("--help" in words and ended.returncode == 0)
    assert not ended.stderr


def test_streams_that_are_closed_full_or_of_another_encoding_do_no_harm() -> None:
    words = " ".join(command("check-config", "--topology", TOPOLOGY))
    top = " ".join(command("top", "--once", "--interval", "1ms", "--url", f"http://127.0.0.1:{free_port()}"))
    for line, code, errors in (
        (f"{words} <&- >&- 2>&-", 0, b""),
        (f"{words} >/dev/full", 1, b"cachesvc: the output cannot be written: No space left on device\n"),
        (f"PYTHONIOENCODING=ascii {top} >/dev/null", 1, b""),
        (
            f"{' '.join(command('publish', '--file', '-', '--queue', 'redis://h'))} <&-",
            2,
            b"cachesvc: -: holds no events\n",
        ),
    ):
        ended = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, check=False, timeout=60)
        assert (ended.returncode, ended.stderr) == (code, errors), line


@pytest.mark.parametrize("words", [("publish", "--file", "-"), ("explain", "pages", "a")], ids=" ".join)
def test_ctrl_c_ends_a_command_with_130_and_no_traceback(words: Sequence[str], queue: RealServer) -> None:
    """`explain` waits for a server that accepts and does not answer, `publish` for its input."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = (
            ("--queue", queue.redis_url)
            if words[0] == "publish"
            else ("--url", f"http://127.0.0.1:{silent.getsockname()[1]}")
        )
        with subprocess.Popen(
            command(*words, *where), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            if words[0] == "publish":
                process.stdin.write(b'{"namespace": "pages", "keys": ["a"]}\n')
                process.stdin.flush()
                process.stdout.readline()
            else:
                silent.accept()
            process.send_signal(signal.SIGINT)
            said = process.stderr.read().decode()
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in said
    if words[0] == "publish":
        assert said == "cachesvc: interrupted; 1 changes announced before\n"
