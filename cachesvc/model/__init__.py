"""The words of the protocol as values: entries, changes, fences, requests, problems.

Every package may import this one; it imports none of them and does no I/O. Start reading at
`entry.py` and `requests.py`.
"""
