"""`cachesvc check`: writes, invalidates and reads through every instance, and judges each
read.

Only `commands/command_line.py` imports this package. Start reading at `run.py`: `load/` makes the
traffic, `judge/` finds violations in the history of it, `watch/` does both without end.
"""
