"""The protocol of clients/PROTOCOL.md as types, rules and limits; there is no I/O here.

Every package of the SDK may import it; it imports `errors` alone. Read `wire.py` first.
"""
