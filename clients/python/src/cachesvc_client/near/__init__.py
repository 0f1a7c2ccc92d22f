"""The near cache: copies in the caller's process, judged by the service's rule for fences.

Only `requests`, `aio`, `sync` and the package's root import it; it imports `values`, `protocol` and
`errors`. Read `near.py` first: it has the mechanism.
"""
