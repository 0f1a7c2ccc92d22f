"""The metrics of several processes as one text, each series with its process as a label."""

import re
from collections.abc import Iterable, Mapping

_SAMPLE = re.compile(rb"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?")
_END = b"# EOF\n"


def merged(texts: Mapping[str, bytes], label: str) -> bytes:
    """Returns one text, in which each series has `label` with the name of its text.

    The texts are in the Prometheus or the OpenMetrics text format, all in the same. The lines of one
    metric stand together, as both formats want it, with its comments once.
    """
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for name, text in texts.items():
        comments: list[bytes] = []
        samples: list[bytes] = []
        is_first = False
        mark = f'{{{label}="{name}"'.encode()
        for line in text.removesuffix(_END).splitlines(keepends=True):
            if not line.startswith(b"#"):
                samples.append(_labelled(line, mark))
                continue
            if line.startswith(b"# HELP "):  # it begins a metric in what the encoders write
                family = line.split(b" ", 3)[2]
                comments, samples = families.setdefault(family, ([], []))
                is_first = not comments
            if is_first:
                comments.append(line)
    end = _END if any(text.endswith(_END) for text in texts.values()) else b""
    return b"".join(_lines(families.values())) + end


def _labelled(line: bytes, mark: bytes) -> bytes:
    found = _SAMPLE.match(line)
    if found is None:
        return line
    rest = line[found.end() :]
    return found[1] + mark + (b"," if found[2] else b"}") + rest


def _lines(families: Iterable[tuple[list[bytes], list[bytes]]]) -> Iterable[bytes]:
    for comments, samples in families:
        yield from comments
        yield from samples
