"""Answers as bytes and headers, problems included. Start reading at `reply.py` and `problems.py`."""
