"""L1: entries in this process, bounded by bytes. Start reading at `l1.py`.

`lru_shard.py` is one shard of L1.
"""
