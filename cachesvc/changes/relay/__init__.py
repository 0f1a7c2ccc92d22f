"""Relays: an instance hands items of `fences` on, so that others need not ask the queue.

Start reading at `follower.py`; docs/coherence.md, "Relays", says why that is safe.
"""
