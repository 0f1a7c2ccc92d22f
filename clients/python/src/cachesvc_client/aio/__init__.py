"""The client for one event loop; only `testing` and the root package import it.

Start with cache.py and namespace.py, what callers hold; a read goes namespace → intake → batching →
calls → transport, and `get_or_load` goes through lookaside and flight. Where `sync` has a module
with the same text, that is generated from the one here (clients/python/unasync.py).
"""
