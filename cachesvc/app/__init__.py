"""The composition root: names the concrete classes, wires an instance, starts, stops it.

Only `commands` imports this package; everything else receives what it needs as arguments.

Start reading at `instance.py`, which starts and stops one service process; `backends.py` makes its
servers, `paths.py` and `feeds.py` wire what stands between the servers and the web layer.
"""
