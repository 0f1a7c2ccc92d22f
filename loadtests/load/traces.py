"""Traces of real caches, as requests for the reference origin's documents.

A trace file is gzip, one request per line, `key` or `key,size`. The size is not used, because the
origin decides how large a document is.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path


def requests_of(trace: Path) -> Iterator[str]:
    """The keys of the trace's requests, in order."""
    with gzip.open(trace, "rt") as lines:
        for line in lines:
            yield f"doc-{line.split(',', 1)[0].strip()}"


def repeated(trace: Path) -> Iterator[str]:
    """The trace again and again, without end.

    Raises `OSError` if the file cannot be read and `ValueError` if it is empty, both at once and not
    at the first key.
    """
    if next(requests_of(trace), None) is None:
        raise ValueError("an empty trace")
    return _repeated(trace)


def _repeated(trace: Path) -> Iterator[str]:
    while True:
        yield from requests_of(trace)
