"""`Recording`: a recorder that keeps the spans that ended, and spans to begin with."""

from cachesvc.telemetry.traces.trace import Span, SpanContext, new_span_id, new_trace_id


class Recording:
    def __init__(self) -> None:
        self.spans: list[Span] = []
        """In the order in which they ended."""

    def record(self, span: Span) -> None:
        self.spans.append(span)

    def root(self, name: str = "cache.get") -> Span:
        """A sampled span of a new trace."""
        return Span(name, "server", SpanContext(new_trace_id(), new_span_id(), True), self)

    def named(self, name: str) -> Span:
        """The one ended span of this name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def tree(self, root: Span, depth: int = 0) -> str:
        """The names under `root`, children indented, by their start; `root` need not have ended."""
        children = sorted(
            (s for s in self.spans if s.parent_id == root.context.span_id), key=lambda s: s.started_ns
        )
        return "\n".join(["  " * depth + root.name, *(self.tree(child, depth + 1) for child in children)])


def unsampled() -> Span:
    """There only to hand the caller's context on."""
    return Span("cache.get", "server", SpanContext(new_trace_id(), new_span_id(), False), None)
