"""Spans of OpenTelemetry and the header `traceparent`.

OpenTelemetry is used only if the process has imported it. `aio` and `sync` import this package; it
imports `protocol` and `errors`. Read `spans.py` first.
"""
