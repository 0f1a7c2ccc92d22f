"""Logs as JSON lines with trace ids, and a line that repeats said once. Start reading at `logs.py`."""
