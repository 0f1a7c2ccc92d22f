"""L2: the region's memcached pool behind `contract.Tier`; every wrapper (`guarded`, `measured`, …) is a tier as well.

Start reading at `contract.py`, then `sharded.py` (the ring of servers) and `memcached.py` (one server).
"""
