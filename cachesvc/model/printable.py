"""Text from elsewhere, made safe for a terminal.

Names, reasons and keys come from callers, peers, queues and origins. An escape sequence among them
could rewrite what a terminal shows, and a bidirectional mark what a line says
(https://trojansource.codes). Such characters are shown as Python writes them in a literal.
"""

from typing import Any


def printable(text: str, keep: str = "") -> str:
    """Returns the text with an escape for each character that does not print (`\\x1b`).

    Those of `keep` stay, line feeds for instance.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text
    )


def shortened(text: str, most: int = 1000) -> str:
    """Returns the text, or beginning and end of one that has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 + 1 :]}"


def printable_in(value: Any) -> Any:
    """Returns a decoded document with every text in it, names of fields too, made printable."""
    match value:
        case str():
            return printable(value)
        case list() | tuple():
            return [printable_in(one) for one in value]
        case dict():
            return {printable_in(name): printable_in(one) for name, one in value.items()}
        case _:
            return value
