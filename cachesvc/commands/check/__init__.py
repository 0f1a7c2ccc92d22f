"""`cachesvc check`: writes, invalidates and reads through every instance of a deployment, and judges each read.

Start reading at `run.py`; `load/` makes the traffic, `judge/` finds violations in its history, `watch/` does both for ever.
"""
