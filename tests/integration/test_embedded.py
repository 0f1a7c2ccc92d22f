"""The embedded set-up on real servers: what it starts it stops, what a killed instance left it reaps, others it leaves alone."""

import asyncio
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from cachesvc.app.embedded.memcached import memcached_binary
from cachesvc.app.embedded.run_dir import claim, default_root
from cachesvc.app.embedded.server_process import ServerProcess, ServerStartError
from cachesvc.app.embedded.set_up import embedded
from cachesvc.app.instance import App
from cachesvc.config.service import Server, Service
from cachesvc.model.errors import ConfigError
from tests.doubles.waiting import until

ABANDON = """
import sys
from pathlib import Path
from cachesvc.app.embedded import memcached, valkey
from cachesvc.app.embedded.run_dir import claim
dies = sys.argv[2] == "dies"
run_dir, _ = claim(Path(sys.argv[1]))
servers = [valkey.valkey_server(run_dir.path, dies_with_parent=dies)]
if memcached.memcached_binary({"PATH": "/usr/bin:/usr/local/bin"}):
    servers.append(memcached.memcached_server("memcached", run_dir.path, dies_with_parent=dies))
for server in servers:
    server.start()
print(*(server.pid for server in servers), flush=True)
sys.stdin.read()
"""
"""An instance that starts its servers, names them, and then waits to be killed."""


@pytest.fixture
def root() -> Iterator[Path]:
    """A short path: pytest's own are too long for a unix socket."""
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as path:  # made private by mkdtemp
        yield Path(path)


def environ(root: Path, **more: str) -> dict[str, str]:
    return {"CACHESVC_RUN_DIR": str(root), "PATH": os.environ["PATH"], **more}


def abandoned(root: Path, how: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that holds a run directory, and the pids of its servers."""
    owner = subprocess.Popen(
        [sys.executable, "-c", ABANDON, str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, [int(word) for word in owner.stdout.readline().split()]


def is_alive(pid: int) -> bool:
    """Alive, and not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def directories(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


async def test_two_cells_and_a_queue_on_one_private_valkey(root: Path) -> None:
    started = await embedded(Service(region="here", instance="i"), environ(root))
    try:
        topology = started.topology
        urls = [topology.cells["c1"].url, topology.cells["c2"].url, topology.regions["here"].queue]
        for number, url in enumerate(urls):
            with redis.Redis.from_url(url) as client:
                assert client.set("same-key", number)
        assert [redis.Redis.from_url(url).get("same-key") for url in urls] == [b"0", b"1", b"2"]
        (directory,) = directories(root)
        assert stat.S_IMODE((root / directory).stat().st_mode) == 0o700
        assert stat.S_IMODE((root / directory / "valkey.sock").stat().st_mode) == 0o700
        assert list(topology.namespaces) == ["pages"]
        assert topology.regions["here"].instances == {"i": "http://127.0.0.1:8080"}
    finally:
        await started.stop()


@pytest.mark.skipif(memcached_binary(os.environ) is None, reason="no memcached on PATH")
async def test_l2_is_the_machines_memcached(root: Path) -> None:
    started = await embedded(Service(), environ(root))
    try:
        server = started.topology.regions["local"].pool["m1"]
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(server.address.removeprefix("unix:"))
            link.sendall(b"set k 0 0 1\r\nv\r\nget k\r\nquit\r\n")
            assert b"".join(iter(lambda: link.recv(100), b"")) == b"STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n"
        assert "(real)" in started.lines[1]
    finally:
        await started.stop()


async def test_without_a_memcached_its_stand_in_is_labelled(root: Path) -> None:
    started = await embedded(Service(), environ(root, PATH=str(root)))
    try:
        assert started.topology.regions["local"].pool["m1"].address == "stand-in"
        assert started.lines[1].startswith("L2: STAND-IN")
    finally:
        await started.stop()


async def test_its_servers_are_set_as_the_rule_needs(root: Path) -> None:
    started = await embedded(Service(), environ(root))
    app = await asyncio.to_thread(App, Service(server=Server(port=0)), started.topology)  # building may block
    await app.start()
    try:
        await until("it has looked at all servers", lambda: len(app._backends.findings._checks) >= 3)
        said = app.readiness()[1]
        assert (said["settings"], said["settings_unknown"]) == ([], {})
    finally:
        await app.stop()
        await started.stop()


async def test_stop_ends_every_server_and_leaves_no_file(root: Path) -> None:
    started = await embedded(Service(), environ(root))
    (directory,) = directories(root)
    pids = [int(path.read_text()) for path in (root / directory).glob("*.pid")]
    assert pids
    assert all(map(is_alive, pids))
    await started.stop()
    assert not any(map(is_alive, pids))
    assert directories(root) == []


async def test_production_is_refused_before_anything_starts(root: Path) -> None:
    with pytest.raises(ConfigError, match="CACHESVC_ENV: production does not run on embedded servers"):
        await embedded(Service(), environ(root, CACHESVC_ENV="production"))
    assert directories(root) == []


async def test_servers_of_a_killed_instance_are_reaped_at_the_next_start(root: Path) -> None:
    owner, orphans = abandoned(root, "lives on")
    owner.kill()
    owner.communicate()
    assert orphans
    assert all(map(is_alive, orphans))
    started = await embedded(Service(), environ(root))
    try:
        assert not any(map(is_alive, orphans))
        assert len(directories(root)) == 1
        assert f"reaped: valkey (pid {orphans[0]}), left by an instance that was killed" in started.lines
    finally:
        await started.stop()


async def test_servers_of_a_living_instance_are_left_alone(root: Path) -> None:
    owner, servers = abandoned(root, "lives on")
    try:
        started = await embedded(Service(), environ(root))
        await started.stop()
        assert all(map(is_alive, servers))
        assert len(directories(root)) == 1
    finally:
        owner.kill()
        owner.communicate()
        claim(root)[0].release()
    assert not any(map(is_alive, servers))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does this")
def test_servers_end_with_a_killed_instance(root: Path) -> None:
    owner, servers = abandoned(root, "dies")
    owner.kill()
    owner.communicate()
    for pid in servers:
        wait_for_end(pid)
    assert not any(map(is_alive, servers))


def wait_for_end(pid: int) -> None:
    """Wait on the process itself; it is not a child of this one."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd here")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 10)[0]
    finally:
        os.close(handle)


def test_a_process_that_took_over_the_id_is_not_killed(root: Path) -> None:
    """The pid file of a dead instance names a process that is something else by now."""
    bystander = subprocess.Popen(["sleep", "60"])
    left = root / "1234-left"
    left.mkdir()
    (left / "owner.lock").touch()
    (left / "valkey.pid").write_text(f"{bystander.pid}\n")
    try:
        run_dir, reaped = claim(root)
        assert reaped == []
        assert bystander.poll() is None
        assert not left.exists()
        run_dir.release()
    finally:
        bystander.kill()
        bystander.wait()


def test_what_else_lies_in_the_root_is_left_alone(root: Path) -> None:
    (root / "holiday").mkdir()
    (root / "holiday" / "photo").touch()
    run_dir, _ = claim(root)
    run_dir.release()
    assert (root / "holiday" / "photo").exists()


def test_a_root_that_others_can_read_is_refused(root: Path) -> None:
    root.chmod(0o755)
    with pytest.raises(ConfigError, match="is not private"):
        claim(root)


def test_the_root_is_the_users_own(root: Path) -> None:
    assert default_root({"XDG_RUNTIME_DIR": str(root)}) == root / "cachesvc"
    assert default_root({"XDG_RUNTIME_DIR": "/nowhere"}).name == f"cachesvc-{os.getuid()}"


def test_a_server_that_ends_at_once_says_why(root: Path) -> None:
    server = ServerProcess(
        "talker", ["sh", "-c", "echo no such option; exit 3"], is_ready=lambda: False, run_dir=root
    )
    with pytest.raises(ServerStartError, match=r"talker ended at once \(exit 3\): no such option"):
        server.start()


def test_a_server_that_stays_silent_is_ended(root: Path) -> None:
    server = ServerProcess("mute", ["sleep", "60"], is_ready=lambda: False, run_dir=root)
    server.spawn()
    with pytest.raises(ServerStartError, match="mute was not ready within"):
        server.wait_ready(within_seconds=0.01)
    assert not server.is_running


def test_a_paused_server_is_stopped_too(root: Path) -> None:
    server = ServerProcess("sleeper", ["sleep", "60"], is_ready=lambda: True, run_dir=root)
    server.start()
    server.kill(signal.SIGSTOP)
    server.stop()
    assert not server.is_running


def test_a_killed_server_starts_again(root: Path) -> None:
    server = ServerProcess("sleeper", ["sleep", "60"], is_ready=lambda: True, run_dir=root)
    server.start()
    first = server.pid
    server.kill()
    assert not server.is_running
    server.restart()
    assert server.is_running
    assert server.pid != first
    server.stop()
