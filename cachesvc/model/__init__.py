"""The words of the protocol as values: entry, change, fence, partition, requests, problems, clock, digests, units.

Every package may import this one; it imports none of them and does no I/O.
Start reading at `entry.py` and `requests.py`.
"""
