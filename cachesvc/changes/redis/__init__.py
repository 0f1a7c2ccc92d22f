"""Both streams of a region on Redis Streams, and the Lua that makes each step atomic.

`changes.py` has the `changes` stream, `fences.py` the `fences` stream and the receipts: start
reading there. Only `app`, and commands that publish or watch, import this package.
"""
