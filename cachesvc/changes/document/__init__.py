"""The versions of the topology document that a fleet shares, and where they are kept.

Start reading at `contract.py`. A store is a file (`file.py`), the queues of all regions
(`queues.py`, each of which is `queue.py`), or etcd (`etcd.py`). `kept.py` is the last good document
on an instance's disk.
"""
