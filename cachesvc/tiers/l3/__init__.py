"""L3: the home cells. A cell grants leases, issues fences and judges its copies.

Each cell does so in Lua on a Redis of its own. Start reading at `contract.py` (the promises of a
cell), then `redis_cell.py`; `placement.py` says which cell is a key's home.
"""
