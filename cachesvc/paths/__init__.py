"""The three paths of a request: read, write, invalidate, each to be read top to bottom.

Only `app` imports this package (`web` sees it through `web/contract.py`); it knows contracts of
tiers and queues, never a server.

Start reading at `read.py`; `flight.py` and `flight_runner.py` are the one running load of a key
that all its readers share.
"""
