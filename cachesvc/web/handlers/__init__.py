"""One module per group of routes.

`../routing.py` finds the place that a request names; `../server.py` has the table of calls.
"""
