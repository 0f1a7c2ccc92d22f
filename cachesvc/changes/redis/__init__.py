"""Both streams of a region on Redis Streams: `changes`, `fences`, their receipts, and the Lua that makes each step atomic.

Only `app`, and commands that publish or watch, import this package. Start reading at `changes.py` and `fences.py`.
"""
