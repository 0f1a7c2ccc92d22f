"""The sync flavour under gevent: greenlets batch, share loads, and are torn out of their calls without harm to others."""

import json
import subprocess
import sys
from pathlib import Path

from clients.python.tests.sync.threaded_service import ThreadedService


def test_two_hundred_greenlets_share_one_client(threaded: ThreadedService) -> None:
    script = Path(__file__).with_name("greenlets.py")
    ended = subprocess.run([sys.executable, script, threaded.url], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["gets"]["right"] == 200
    assert said["gets"]["requests"] <= 8, "they shared requests"
    assert said["loads"] == {"right": 200, "loads": 1}
    assert said["torn"] == {"right": 180, "of": 180}
