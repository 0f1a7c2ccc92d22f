"""`cachesvc size`: the needs of a deployment before it is built.

Start reading at `command.py`.
`load.py` is the document of what callers will ask, `needs.py` the arithmetic over servers, and
`allocation.py` the bytes that Redis and memcached take for what they are given.
"""
