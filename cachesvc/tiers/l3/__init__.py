"""L3: the home cells. Each grants leases, issues fences and judges its copies, in Lua on its own Redis.

Start reading at `contract.py` (what a cell promises), then `redis_cell.py`; `placement.py` says which cell is a key's home.
"""
