"""`cachesvc check --watch`: a check without end, whose results are exported as metrics.

Only `commands/check` imports this package. Start reading at `watch.py`.
"""
