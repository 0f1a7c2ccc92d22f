"""The Grafana dashboard, made from the table of metrics.

Start reading at `panels.py`; `grafana.py` makes Grafana's JSON of the panels.
"""
