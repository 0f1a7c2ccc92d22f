"""The protocol's calls as requests to send and replies to read, for both flavours; no I/O.

Only `aio`, `sync`, `testing` and the root package import it. Start with namespace_requests.py; the
tokens that reads take along are in own_writes.py and handed_tokens.py.
"""
