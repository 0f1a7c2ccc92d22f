"""Spans, the decision which of them are kept, and their export over OTLP.

Start reading at `trace.py`.
"""
