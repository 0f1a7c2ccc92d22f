"""Runs Keyv's suite for stores against a service on embedded servers.

    python -m tests.peers.keyv_contract

It needs node and npm, and installs Keyv and its suite from the npm registry into `.run/keyv`. The
store is `tests/peers/keyv/store.mjs`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from loadtests.fleet_topology import free_ports

HERE = Path(__file__).parent / "keyv"
RUN = Path(".run") / "keyv"


def main() -> int:
    """Returns the suite's exit code."""
    shutil.copytree(HERE, RUN, dirs_exist_ok=True)
    subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=RUN, check=True)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as directory:
        environ = {**os.environ, "CACHESVC_RUN_DIR": directory, "CACHESVC_SERVER_PORT": str(port)}
        with subprocess.Popen([sys.executable, "-m", "cachesvc", "serve"], env=environ) as service:
            try:
                wait_ready(url)
                suite = ["npx", "vitest", "run"]
                return subprocess.run(
                    suite, cwd=RUN, env={**os.environ, "CACHESVC_URL": url}, check=False
                ).returncode
            finally:
                service.send_signal(signal.SIGINT)


def wait_ready(url: str) -> None:
    """Waits until the instance is ready. Raises `URLError` after half a minute."""
    for left in reversed(range(300)):
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except urllib.error.URLError:
            if not left:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
