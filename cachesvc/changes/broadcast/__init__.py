"""The fences that this instance has merged, as server-sent events for near caches.

Start reading at `broadcast.py`.
"""
