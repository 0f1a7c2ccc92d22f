"""Traces of real caches as requests for the reference origin's documents.

A trace is gzip, one request a line, `key` or `key,size` (the formats of `../shared/traces`; the size is not used, since the
origin decides it).
"""

import gzip
from collections.abc import Iterator
from pathlib import Path


def requests_of(trace: Path) -> Iterator[str]:
    with gzip.open(trace, "rt") as lines:
        for line in lines:
            yield f"doc-{line.split(',', 1)[0].strip()}"


def repeated(trace: Path) -> Iterator[str]:
    """The trace, from its beginning whenever it has ended. Raises `OSError` or `ValueError` at once if it has none."""
    if next(requests_of(trace), None) is None:
        raise ValueError("an empty trace")
    return _repeated(trace)


def _repeated(trace: Path) -> Iterator[str]:
    while True:
        yield from requests_of(trace)
