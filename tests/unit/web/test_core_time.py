"""A thread's share of the machine."""

import time

import pytest

from cachesvc.web import core_time
from cachesvc.web.core_time import CoreTime


@pytest.mark.parametrize("path", [core_time.SCHEDSTAT, "/nowhere"])
def test_it_goes_on_while_the_thread_works(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_time, "SCHEDSTAT", path)
    spent = CoreTime()
    before, used = spent(), time.thread_time()
    while time.thread_time() - used < 0.03:
        pass
    assert spent() - before >= 0.015, "the kernel brings its count up to date at ticks"
    spent.close()
