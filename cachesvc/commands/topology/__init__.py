"""`cachesvc topology diff`: the changes that another topology document makes.

Start reading at `command.py`.
`difference.py` compares two documents, `moves.py` counts the partitions and keys that move, and
`page.py` says all of it in words.
"""
