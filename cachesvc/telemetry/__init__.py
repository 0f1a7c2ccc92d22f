"""How an instance is seen from outside: metrics, traces, logs, popular keys, and the dashboard made from the metrics' table.

Every package but `config` and `model` may import this one; it decides nothing about requests.
Start reading at `metrics/table.py`, which lists every metric, and `traces/trace.py`, which has the span.
"""
