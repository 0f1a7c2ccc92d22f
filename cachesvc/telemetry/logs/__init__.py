"""Logs as JSON lines with trace ids; a line that repeats is written once a minute.

Start reading at `logs.py`.
"""
