"""Figures as people read them, each with its unit."""


def shown(figure: str, value: float | None) -> str:
    if value is None:
        return "–"
    if figure.endswith("_share"):
        return share(value)
    if figure.endswith("_ms"):
        return f"{spoken(value)} ms"
    return spoken(value)


def share(value: float) -> str:
    """A percentage that does not round a few failures to none, nor many hits to all."""
    percent = value * 100
    if 0 < percent < 0.01:
        return "<0.01 %"
    return f"{percent:.3g} %" if percent < 99.95 else f"{int(percent * 100) / 100:g} %"


def spoken(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
