"""`Recording`: a recorder that keeps ended spans, and makes spans to start with."""

from cachesvc.telemetry.traces.trace import Span, SpanContext, new_span_id, new_trace_id


class Recording:
    """A `Recorder` that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        """The spans in the order in which they ended."""

    def record(self, span: Span) -> None:
        """Keeps an ended span."""
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
        """The names of the ended spans, in order."""
        return [span.name for span in self.spans]

    def tree(self, root: Span, depth: int = 0) -> str:
        """The names under `root`, children indented, in the order of their start.

        `root` itself need not have ended.
        """
        children = sorted(
            (s for s in self.spans if s.parent_id == root.context.span_id), key=lambda s: s.started_ns
        )
        return "\n".join(["  " * depth + root.name, *(self.tree(child, depth + 1) for child in children)])


def unsampled() -> Span:
    """A span of a trace that is not sampled, which only hands the caller's context on."""
    return Span("cache.get", "server", SpanContext(new_trace_id(), new_span_id(), False), None)
