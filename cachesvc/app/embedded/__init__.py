"""The set-up without servers of one's own: an instance starts Valkey and memcached itself.

It owns them and stops them. `app` and `commands` import this package; it blocks, so it runs before
anything is served.

Start reading at `set_up.py`.
"""
