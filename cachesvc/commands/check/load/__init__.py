"""The checker's traffic: an origin, writers, readers and sessions, and a record of each
answer.

Only `commands/check` imports this package. Start reading at `workload.py`.
"""
