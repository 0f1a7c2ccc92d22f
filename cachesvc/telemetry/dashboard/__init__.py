"""The Grafana dashboard, made from the table of metrics. `python -m cachesvc.telemetry.dashboard.dashboard` writes it."""
