"""Run by `test_sync_gevent.py` in a process of its own, as patching cannot be undone. argv: the service, what to show."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402  all that blocks is imported after patching
import sys  # noqa: E402

import gevent  # noqa: E402
from cachesvc_client.sync import Cache, Hit, NearSettings  # noqa: E402

GREENLETS = 200


def gets(cache: Cache) -> dict[str, object]:
    """Together, and each with its own value."""
    pages = cache.namespace("pages")
    pages.set_many({f"k{i}": b"%d" % i for i in range(GREENLETS)})
    before = cache.statistics().requests
    jobs = [gevent.spawn(pages.get, f"k{i}") for i in range(GREENLETS)]
    gevent.joinall(jobs, raise_error=True)
    right = sum(job.value == b"%d" % i for i, job in enumerate(jobs))
    return {"right": right, "requests": cache.statistics().requests - before}


def loads(cache: Cache) -> dict[str, object]:
    """One loader, which lets the other greenlets run."""
    pages = cache.namespace("pages")
    running: list[str] = []

    def load(key: str) -> bytes:
        running.append(key)
        gevent.sleep(0.05)
        return b"loaded"

    jobs = [gevent.spawn(pages.get_or_load, "shared", load) for _ in range(GREENLETS)]
    gevent.joinall(jobs, raise_error=True)
    return {"right": sum(job.value == b"loaded" for job in jobs), "loads": len(running)}


def torn(cache: Cache) -> dict[str, object]:
    """A tenth of the callers is torn out of its loads, by `gevent.Timeout`; the others do not suffer for it."""
    pages = cache.namespace("pages")

    def load(_key: str) -> bytes:
        gevent.sleep(0.03)
        return b"loaded"

    def hasty(key: str) -> bytes | None:
        with gevent.Timeout(0.01, False):
            return pages.get_or_load(key, load)
        return b"torn"

    calls = [hasty if i % 10 == 0 else lambda key: pages.get_or_load(key, load) for i in range(GREENLETS)]
    jobs = [gevent.spawn(call, f"torn{i // 20}") for i, call in enumerate(calls)]
    gevent.joinall(jobs, raise_error=True)
    patient = [job.value for i, job in enumerate(jobs) if i % 10]
    return {"right": sum(value == b"loaded" for value in patient), "of": len(patient)}


def near(cache: Cache) -> dict[str, object]:
    """The feed is followed on a greenlet, beside the readers."""
    pages = cache.namespace("pages", near=NearSettings())
    pages.set("near", b"1")
    with gevent.Timeout(10):
        while not isinstance(found := pages.lookup("near"), Hit) or found.tier != "near":
            gevent.sleep(0.01)
    before = cache.statistics().requests
    jobs = [gevent.spawn(pages.get, "near") for _ in range(GREENLETS)]
    gevent.joinall(jobs, raise_error=True)
    return {"right": sum(job.value == b"1" for job in jobs), "requests": cache.statistics().requests - before}


SHOWN = {"gets": gets, "loads": loads, "torn": torn, "near": near}

with Cache.from_url(sys.argv[1], default_timeout="10s", lease_wait="200ms") as opened:
    print(json.dumps({name: SHOWN[name](opened) for name in sys.argv[2:]}))
