"""Spans, who decides that they are kept, and their export over OTLP. Start reading at `trace.py`."""
