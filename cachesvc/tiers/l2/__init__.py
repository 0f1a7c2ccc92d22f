"""L2: the region's memcached pool behind `contract.Tier`. Every wrapper is a tier as well.

Start reading at `contract.py`, then `sharded.py` (the ring of servers) and `memcached.py` (one
server). The wrappers are `batched.py`, `guarded.py`, `measured.py` and `deadline.py`.
"""
