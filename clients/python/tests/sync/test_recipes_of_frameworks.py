"""The recipes of docs/recipes.md for frameworks and tests run, in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from clients.python.tests.sync.recipes import recipe, snippets
from clients.python.tests.sync.threaded_service import ThreadedService
from loadtests.fleet_topology import free_ports

PATIENCE_SECONDS = 30.0
WITH_PIDS = """
import os
from shop import app


@app.after_request
def _tell(response):
    response.headers["Worker"] = str(os.getpid())
    return response
"""
"""The application of a recipe, whose answers also name the worker."""
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(part or os.curdir for part in sys.path),
    "PYTHONDONTWRITEBYTECODE": "1",
}


@contextmanager
def running(*module: str, at: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a web server as `python -m …`; the server has to end without an error."""
    log = at / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", *module], cwd=at, env=ENVIRONMENT, stdout=out, stderr=out, text=True
        )
        try:
            answers(url, server)
            yield server
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_SECONDS)
        finally:
            server.kill()
            server.wait()
    said = log.read_text()
    assert "Traceback" not in said, said
    assert "Error" not in said, said


def answers(url: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib3.request("GET", url, retries=False, timeout=5.0)
        except urllib3.exceptions.HTTPError:
            assert server.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def asked(method: str, url: str) -> urllib3.BaseHTTPResponse:
    """One request on a connection of its own, so that any worker may take it."""
    with urllib3.PoolManager(headers={"Connection": "close"}) as pool:
        return pool.request(method, url, retries=False, timeout=PATIENCE_SECONDS)


def loads(threaded: ThreadedService) -> int:
    return len([call for call in threaded.fake.calls(":put") if call.body["items"][0].get("value")])


def test_fastapi(threaded: ThreadedService, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(snippets("FastAPI", threaded.url)[0])
    (port,) = free_ports(1)
    users = f"http://127.0.0.1:{port}/users"
    with running("uvicorn", "shop:app", "--port", str(port), at=tmp_path, url=f"{users}/1"):
        assert asked("GET", f"{users}/1").status == 404
        told = [asked("GET", f"{users}/7").json() for _ in range(3)]
        assert told == [{"name": "Ada"}] * 3
        assert loads(threaded) == 1
        assert asked("PUT", f"{users}/7?name=Grace").status == 200
        assert asked("GET", f"{users}/7").json() == {"name": "Grace"}


def test_flask_and_gunicorn(threaded: ThreadedService, tmp_path: Path) -> None:
    """Two workers, forked after the import: one load for both, one invalidation for both."""
    (tmp_path / "shop.py").write_text(snippets("Flask and gunicorn", threaded.url)[0])
    (tmp_path / "shop_with_pids.py").write_text(WITH_PIDS)
    (port,) = free_ports(1)
    users = f"http://127.0.0.1:{port}/users"
    told = ("--workers", "2", "--preload", "--bind", f"127.0.0.1:{port}", "shop_with_pids:app")
    with running("gunicorn", *told, at=tmp_path, url=f"{users}/1"):
        workers: set[str] = set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(workers) < 2 and time.monotonic() < deadline:
            answer = asked("GET", f"{users}/7")
            assert answer.json() == {"name": "Ada"}
            workers.add(answer.headers["Worker"])
        assert len(workers) == 2
        assert loads(threaded) == 1
        changed = asked("PUT", f"{users}/7?name=Grace").headers["Worker"]
        invalidated = threaded.fake.calls("invalidations")
        assert [call.body["tags"] for call in invalidated] == [["user:7"]]
        for _ in range(200):  # each worker has a "database" of its own; the cache is one
            answer = asked("GET", f"{users}/7")
            if answer.headers["Worker"] == changed:
                break
        assert loads(threaded) == 2, "the copy of both is gone, and one of them has loaded it again"


def test_pydantic(threaded: ThreadedService) -> None:
    names = recipe("pydantic", threaded.url)
    assert loads(threaded) == 1
    names["cache"].close()


def test_tests(tmp_path: Path) -> None:
    """The suite of the page passes, without any service."""
    (tmp_path / "shop.py").write_text(snippets("FastAPI", "http://127.0.0.1:9")[0])
    conftest, tests = snippets("Tests", "")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_shop.py").write_text(tests)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 passed" in ended.stdout
