"""The HTTP surface: requests are routed, read, given to a path, and answered.

Only `app` imports this package. It sees the paths through the protocols in `contract.py` and
imports none of them. Start reading at `server.py`; `requests/` parses, `handlers/` does the work,
`replies/` renders.
"""
