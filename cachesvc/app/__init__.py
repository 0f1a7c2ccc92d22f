"""The composition root: it names the concrete classes, wires them into one instance and starts and stops it.

Only `commands` imports this package; everything else receives what it needs as arguments.
Start reading at `instance.py`, which builds from the clock up to the web server; `backends.py` makes the far servers.
"""
