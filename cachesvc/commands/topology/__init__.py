"""`cachesvc topology`: what another topology document changes, and its versions.

Start reading at `command.py`.
`difference.py` compares two documents, `moves.py` counts the partitions and keys that move, and
`page.py` says all of it in words. `versions.py` reads and puts versions of a store.
"""
