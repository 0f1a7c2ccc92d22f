"""The sync flavour under gevent: greenlets batch, share loads, and are torn out of their calls without harm to others."""

from clients.python.tests.sync.callers import in_greenlets
from clients.python.tests.sync.threaded_service import ThreadedService


def test_two_hundred_greenlets_share_one_client(threaded: ThreadedService) -> None:
    said = in_greenlets(threaded.url, "gets", "loads", "torn")
    assert said["gets"]["right"] == 200
    assert said["gets"]["requests"] <= 8, "they shared requests"
    assert said["loads"] == {"right": 200, "loads": 1}
    assert said["torn"] == {"right": 180, "of": 180}
