"""The partition of a key or tag, by which its home cell is found."""

from collections.abc import Iterable


def partition(text: str) -> str:
    """Returns the partition of a text, by the rule of Redis hash tags.

    It is the part between the first `{` and the `}` after it, unless that is empty; else all of
    `text`. `{ws-7}:block:42` → `ws-7`; `{}:a`, `a{b` and `plain` are their own partitions. The
    partition of a partition is itself.
    """
    start = text.find("{")
    if start < 0:
        return text
    end = text.find("}", start + 1)
    return text[start + 1 : end] if end > start + 1 else text


def foreign_tags(text: str, tags: Iterable[str]) -> list[str]:
    """Returns the tags that name another `{partition}` than the key's.

    The key may not have such tags, because their fences are applied in another home cell.
    """
    return [tag for tag in tags if "{" in tag and partition(tag) not in (tag, partition(text))]
