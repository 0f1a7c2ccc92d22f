"""A change's way to every instance: it is announced, applied in its home cell, published as fences, merged, broadcast.

`paths`, `web`, `app` and `commands` import this package; it imports coherence, tiers, telemetry, config and model.
Start reading at `contract.py`, which says what the two streams promise; `redis/` keeps both promises on Redis Streams.
"""
