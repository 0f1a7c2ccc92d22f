"""A program of threads pays for no event loop; the async names are there when they are asked for."""

import json
import subprocess
import sys

import cachesvc_client
import pytest
from cachesvc_client.aio.cache import Cache

FOREIGN = ("asyncio", "aiohttp", "cachesvc_client.aio")
"""With all that is below them: the whole of asyncio, and not only its loops, streams and servers."""


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after the statement."""
    program = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(ran.stdout))


def of_async(modules: set[str]) -> set[str]:
    return {
        name for name in modules if name.startswith(tuple(f"{one}." for one in FOREIGN)) or name in FOREIGN
    }


def test_the_sync_flavour_loads_neither_asyncio_nor_aiohttp_nor_the_async_flavour() -> None:
    modules = loaded_by("import cachesvc_client.sync")
    assert "cachesvc_client.sync.cache" in modules
    assert of_async(modules) == set()


def test_a_shared_name_of_the_root_loads_no_flavour() -> None:
    modules = loaded_by("from cachesvc_client import CacheError, JSON")
    assert of_async(modules) == set()
    assert "urllib3" not in modules


def test_an_async_name_of_the_root_loads_its_flavour_and_not_the_other() -> None:
    modules = loaded_by("from cachesvc_client import Cache")
    assert FOREIGN[1] in modules
    assert "cachesvc_client.sync" not in modules


def test_all_names_of_the_root_are_listed_and_imported_by_a_star() -> None:
    assert set(cachesvc_client.__all__) <= set(dir(cachesvc_client))
    starred: dict[str, object] = {}
    exec("from cachesvc_client import *", starred)  # noqa: S102  a star is not allowed in a function
    assert starred.keys() >= set(cachesvc_client.__all__)
    assert starred["Cache"] is Cache


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Cash'"):
        getattr(cachesvc_client, "Cash")  # noqa: B009  mypy knows that it is none
