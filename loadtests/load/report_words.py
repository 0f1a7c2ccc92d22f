"""Figures as text for people, each with its unit."""


def shown(figure: str, value: float | None) -> str:
    """The value of `figure` with its unit; a dash if it is not known."""
    if value is None:
        return "–"
    if figure.endswith("_share"):
        return share(value)
    if figure.endswith("_ms"):
        return f"{spoken(value)} ms"
    return spoken(value)


def share(value: float) -> str:
    """A percentage that never rounds a few failures to none, nor nearly all hits to all."""
    percent = value * 100
    if 0 < percent < 0.01:
        return "<0.01 %"
    return f"{percent:.3g} %" if percent < 99.95 else f"{int(percent * 100) / 100:g} %"


def spoken(value: float) -> str:
    """The number with three significant digits, and with thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
