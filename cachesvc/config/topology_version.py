"""The `version` of a topology document, found in its text and set there.

A document's text is kept as its author wrote it, with comments and in its order: only the digits of
`version` are replaced.
"""

from collections.abc import Iterator

import yaml


def version_of(text: str) -> int:
    """Returns the number; 0 if there is none, or the text is no YAML up to there."""
    found = _place(text)
    return int(text[slice(*found)]) if found else 0


def with_version(text: str, number: int) -> str:
    """Returns the text with another number. Raises `ValueError` if it has none."""
    if (found := _place(text)) is None:
        raise ValueError("there is no `version` with a whole number")
    start, end = found
    return f"{text[:start]}{number}{text[end:]}"


def _place(text: str) -> tuple[int, int] | None:
    """Returns where the digits of `version` stand, as indexes; None if there are none."""
    try:
        for key, value in _top_scalars(text):
            if key == "version":
                start, end = value.start_mark, value.end_mark
                if start is None or end is None:
                    return None
                place = start.index, end.index
                digits = text[slice(*place)]
                return place if digits.isascii() and digits.isdigit() and len(digits) < 16 else None
    except (yaml.YAMLError, ValueError):
        pass
    return None


def _top_scalars(text: str) -> Iterator[tuple[str, yaml.ScalarEvent]]:
    """Yields names and values of the outermost mapping, of those that are scalars."""
    depth, key = 0, None
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            key = None if depth == 1 else key
        elif depth == 1 and isinstance(event, yaml.NodeEvent):
            if key is None:
                key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            else:
                if isinstance(event, yaml.ScalarEvent):
                    yield key, event
                key = None
