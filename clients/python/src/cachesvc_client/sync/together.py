"""The loader of many keys, which `get_or_load_many` calls once for all that are missing."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from cachesvc_client.values.context import ABSENT, Absent, check_value, checked_mapping

V = TypeVar("V")
ManyLoader: TypeAlias = Callable[[list[str]], Mapping[str, V | Absent]]
"""Loads the values of many keys. A key that is not in the mapping has no value.

A loader reads its source after it was called, not before: the leases count from the call.
"""


def loaded(loader: ManyLoader[V], keys: list[str]) -> dict[str, V | Absent]:
    """Returns a value, or `ABSENT`, for each of the keys."""
    values = loader(keys)
    check_value(values, loader)
    found = checked_mapping(values)
    return {key: found.get(key, ABSENT) for key in keys}
