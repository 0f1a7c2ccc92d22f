"""How an instance is seen from outside.

Metrics, traces, logs, popular keys, and the dashboard that is made from the table of metrics.

Every package but `config` and `model` may import this one; it decides nothing about requests.
Start reading at `metrics/table.py`, which lists every metric, and `traces/trace.py`, which has
the span.
"""
