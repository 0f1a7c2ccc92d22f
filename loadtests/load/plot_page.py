"""Pages around the pictures: one for a scenario with its limits, one for all scenarios.

A page needs no script; the page of a scenario needs no other file either.
"""

from collections.abc import Sequence
from html import escape

import msgspec

STYLE = """
:root{color-scheme:light dark;
--ink:#1b1f24;--soft:#667080;--rule:#e4e7ec;--paper:#fff;--ok:#15803d;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{
--ink:#e6e9ee;--soft:#98a2b3;--rule:#2c333d;--paper:#14181d;--ok:#4ade80;--bad:#f97066}}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif;
max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h1 small{font-weight:500;font-size:1rem;margin-left:.6rem}
p{color:var(--soft);margin:.2rem 0 1rem}
svg,img{width:100%;height:auto}table{border-collapse:collapse;width:100%;font-size:13px;margin:1rem 0}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:500}
td.number{font-variant-numeric:tabular-nums}.ok{color:var(--ok)}.bad{color:var(--bad);font-weight:600}
section{margin-bottom:3rem}
"""


def page_of(
    name: str, about: str, verdict: str, limits: Sequence[tuple[str, str, str, str, bool]], svg: str
) -> str:
    """The page of one scenario.

    `limits` has stretch, figure, value, what is allowed, and whether the limit is kept.
    """
    ok = bool(limits) and all(kept for *_, kept in limits)
    return _page(
        f"{name}: {verdict}",
        f"{_head(name, verdict, ok)}<p>{escape(about)}</p>{svg}"
        "<table><tr><th>stretch<th>figure<th>is<th>allowed<th></tr>"
        + "".join(_row(*limit) for limit in limits)
        + '</table><p>More: <a href="verdict.json">verdict.json</a>,'
        " locust.html and samples.jsonl in the folders next to this page.</p>",
    )


class Kept(msgspec.Struct, frozen=True):
    """The part of a `verdict.json` that the page of all scenarios shows."""

    scenario: str
    about: str
    stretch: str
    ok: bool
    verdict: str
    shown: list[str]


def index_of(heads: Sequence[str], scenarios: Sequence[Kept]) -> str:
    """The page of all scenarios; `heads` are those of its table."""
    head = "".join(f"<th>{escape(head)}" for head in heads)
    table = f"<table><tr>{head}</tr>{''.join(map(_summary, scenarios))}</table>"
    return _page("Load scenarios", f"<h1>Load scenarios</h1>{table}{''.join(map(_section, scenarios))}")


def _summary(kept: Kept) -> str:
    cells = "".join(f'<td class="number">{escape(cell)}' for cell in (kept.stretch, *kept.shown))
    name = escape(kept.scenario)
    verdict = f'<td class="{_class(kept.ok)}">{escape(kept.verdict)}'
    return f'<tr><td><a href="#{name}">{name}</a>{cells}{verdict}</tr>'


def _section(kept: Kept) -> str:
    name = escape(kept.scenario)
    image = f'<img src="{name}/plot.svg" alt="{name}: latency, requests, tiers, origin loads">'
    head, about = _head(name, kept.verdict, kept.ok), f"<p>{escape(kept.about)}</p>"
    return f'<section id="{name}">{head}{about}<a href="{name}/plot.html">{image}</a></section>'


def _head(name: str, verdict: str, ok: bool) -> str:
    return f'<h1>{escape(name)}<small class="{_class(ok)}">{escape(verdict)}</small></h1>'


def _class(ok: bool) -> str:
    return "ok" if ok else "bad"


def _row(stretch: str, figure: str, value: str, allowed: str, kept: bool) -> str:
    cells = "".join(f'<td class="number">{escape(cell)}' for cell in (stretch, figure, value, allowed))
    return f'<tr>{cells}<td class="{_class(kept)}">{"kept" if kept else "missed"}</tr>'


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><body>{body}</body></html>\n"
    )
