"""The dashboard as the JSON document that Grafana imports.

    python -m cachesvc.telemetry.dashboard > config/grafana/cachesvc.json

The document does not depend on when or where it was made, so a change of the file is always a
change of the dashboard.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, TypeAlias

from cachesvc.telemetry.dashboard.panels import Panel, Query, Row, rows

Json: TypeAlias = dict[str, Any]

_WIDTH, _HEIGHT = 8, 8
_COLUMNS = 24 // _WIDTH
"""Panels side by side: Grafana's grid is 24 units wide."""
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(shown: Iterable[Row] | None = None) -> Json:
    """The document with a row for each of `shown`; by default, for the whole table."""
    return {
        "uid": "cachesvc",
        "title": "cachesvc",
        "tags": ["cachesvc"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "templating": {"list": [_datasource(), _choice("site"), _choice("instance", '{site=~"$site"}')]},
        "panels": list(_laid_out(rows() if shown is None else shown)),
    }


def as_text(document: Mapping[str, Any]) -> str:
    """The document as the text of the JSON file that is committed."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def queries_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the panel's title and the expression of every query, folded rows included."""
    for panel in document["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", ()))
        yield from queries_of({"panels": panel.get("panels", ())})


def _laid_out(shown: Iterable[Row]) -> Iterator[Json]:
    """Yields rows and panels: the first row open, the others folded.

    Grafana asks Prometheus only for panels that are visible, so folded rows cost nothing.
    """
    ids = count(1)
    y = 0
    for row in shown:
        is_first = y == 0
        panels = [_panel(next(ids), panel, index, y + 1) for index, panel in enumerate(row.panels)]
        yield {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": not is_first,
            "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            "panels": [] if is_first else panels,
        }
        if is_first:
            yield from panels
        y += 1 + _HEIGHT * -(-len(panels) // _COLUMNS)


def _panel(id_: int, panel: Panel, index: int, y: int) -> Json:
    return {
        "id": id_,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": {
            "x": index % _COLUMNS * _WIDTH,
            "y": y + index // _COLUMNS * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0 if panel.unit == "ops" else None},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [_target(query, ref) for query, ref in zip(panel.queries, "ABCDEF", strict=False)],
    }


def _target(query: Query, ref: str) -> Json:
    return {"refId": ref, "datasource": _DATASOURCE, "expr": query.expression, "legendFormat": query.legend}


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _choice(label: str, of: str = "") -> Json:
    """A variable of the dashboard that holds the values of the target label `label`."""
    return {
        "name": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": f"label_values(cachesvc_ready{of}, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
