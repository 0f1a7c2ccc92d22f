"""The checker's traffic: an origin of its own, writers, readers, sessions, and what each of them saw.

Only `commands/check` imports this package. Start reading at `workload.py`.
"""
