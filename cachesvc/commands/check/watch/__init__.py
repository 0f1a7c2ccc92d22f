"""`cachesvc check --watch`: a rolling check that exports what it sees as metrics.

Only `commands/check` imports this package. Start reading at `watch.py`.
"""
