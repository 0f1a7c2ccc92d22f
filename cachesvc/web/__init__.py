"""The HTTP surface: a request is routed, read, handed to a path, and its answer is rendered.

Only `app` imports this package; it sees the paths through the protocols in `contract.py` and imports none of them.
Start reading at `server.py`; `requests/` parses, `handlers/` does, `replies/` renders.
"""
