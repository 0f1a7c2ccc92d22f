"""The set-up that needs no servers: a Valkey and a memcached that an instance starts, owns and stops by itself.

`app` and `commands` import this package; it blocks, so it runs before anything is served. Start reading at `set_up.py`.
"""
