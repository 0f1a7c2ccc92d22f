"""Benchmarks that compare two sides in pairs on the same machine: `make bench`.

Start reading at `rows.py`, which has every comparison; `figures.py` has their arithmetic. Modules
with a `main` can be run by themselves; their docstrings say how.
"""
