from collections.abc import Iterable


def partition(text: str) -> str:
    """The rule of Redis hash tags: what stands between the first `{` and the `}` after it, unless empty; else all of `text`.

    `{ws-7}:block:42` → `ws-7`; `{}:a`, `a{b` and `plain` are their own partitions. The partition of a partition is itself.
    """
    start = text.find("{")
    if start < 0:
        return text
    end = text.find("}", start + 1)
    return text[start + 1 : end] if end > start + 1 else text


def foreign_tags(text: str, tags: Iterable[str]) -> list[str]:
    """Tags that name another `{partition}` than the key's: their fences live in another home, so this key may not have them."""
    return [tag for tag in tags if "{" in tag and partition(tag) not in (tag, partition(text))]
