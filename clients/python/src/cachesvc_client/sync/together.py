"""The loader of many keys, which `get_or_load_many` calls once for all that are missing."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from cachesvc_client.values.context import ABSENT, Absent, checked_mapping

V = TypeVar("V")
ManyLoader: TypeAlias = Callable[[list[str]], Mapping[str, V | Absent]]
"""Loads the values of many keys. A key that is not in the mapping has no value.

A loader reads its source after it was called, not before: the leases count from the call.
"""


def loaded(loader: ManyLoader[V], keys: list[str]) -> dict[str, V | Absent]:
    """Returns a value, or `ABSENT`, for each of the keys."""
    values = loader(keys)
    if inspect.iscoroutine(values):
        values.close()
        raise ValueError(f"loader: {loader!r} is an async function: use it with cachesvc_client.Cache")
    found = checked_mapping(values)
    return {key: found.get(key, ABSENT) for key in keys}
