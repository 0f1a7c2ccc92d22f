"""L1: entries in this process, bounded by bytes. Start reading at `l1.py`.

`room.py` is a namespace's room, `fair_shares.py` decides which room gives up an entry, and
`lru_shard.py`, one shard of a room, which entry it is.
"""
