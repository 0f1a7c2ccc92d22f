"""Answers as bytes and headers, with problems.

Start reading at `reply.py` and `problems.py`.
"""
