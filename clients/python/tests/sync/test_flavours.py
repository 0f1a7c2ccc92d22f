"""Both flavours have the same names and parameters. What differs is listed here, with its reason."""

import inspect
from collections.abc import Callable
from typing import Any

import cachesvc_client
import cachesvc_client.sync
import pytest

ELSEWHERE = {
    "aclose": "close",  # a blocking end is called `close` everywhere, an awaited one `aclose`
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
CLASSES = ["Cache", "CachedFunction", "Namespace", "OnCommit"]
OF_THEIR_OWN = {"CachedFunction", "Cache", "Loader", "Namespace", "OnCommit"}
"""The names that stand for different things: what awaits, and what is awaited."""


def public(of: type) -> dict[str, Callable[..., Any]]:
    """Its methods, by the name the sync flavour has for them."""
    methods = {
        name: member
        for name, member in inspect.getmembers(of, callable)
        if name in ELSEWHERE or not name.startswith("_")
    }
    return {ELSEWHERE.get(name, name): method for name, method in methods.items()}


def parameters(method: Callable[..., Any]) -> list[tuple[str, object, object]]:
    signature = inspect.signature(method)
    return [(one.name, one.kind, one.default) for one in signature.parameters.values()]


def test_the_same_names_are_exported() -> None:
    assert cachesvc_client.sync.__all__ == cachesvc_client.__all__


def test_all_but_the_calling_parts_are_one_and_the_same_object() -> None:
    different = {
        name
        for name in cachesvc_client.__all__
        if getattr(cachesvc_client, name) is not getattr(cachesvc_client.sync, name)
    }
    assert different == OF_THEIR_OWN


@pytest.mark.parametrize("name", CLASSES)
def test_methods_have_the_same_names_and_parameters(name: str) -> None:
    awaited, blocking = public(getattr(cachesvc_client, name)), public(getattr(cachesvc_client.sync, name))
    blocking |= {
        method: getattr(getattr(cachesvc_client.sync, name), method)
        for method in awaited.keys() & {"__enter__", "__exit__"}
    }
    assert blocking.keys() == awaited.keys()
    assert {method: parameters(blocking[method]) for method in blocking} == {
        method: parameters(awaited[method]) for method in awaited
    }


@pytest.mark.parametrize("name", CLASSES)
def test_the_sync_flavour_awaits_nothing(name: str) -> None:
    of = getattr(cachesvc_client.sync, name)
    assert [
        method for method, member in inspect.getmembers(of, callable) if inspect.iscoroutinefunction(member)
    ] == []


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_that_callers_read_are_the_same(name: str) -> None:
    def properties(of: type) -> set[str]:
        return {
            member
            for member, value in inspect.getmembers(of)
            if isinstance(value, property) and not member.startswith("_")
        }

    assert properties(getattr(cachesvc_client.sync, name)) == properties(getattr(cachesvc_client, name))
