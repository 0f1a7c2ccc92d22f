"""The way of a change to every instance: announced, applied, published, merged, broadcast.

A change is announced on its region's `changes` stream and applied in its home cells; the fences
that come of it are published on the `fences` stream, merged by every instance, and broadcast to
near caches. `paths`, `web`, `app` and `commands` import this package; it imports coherence, tiers,
telemetry, config and model. Start reading at `contract.py`, which says what the two streams
promise; `redis/` keeps both promises on Redis Streams.
"""
