"""`cachesvc cell`: adds and drains cells, moves partitions, and ends moves.

Start reading at `command.py`. `edit.py` says what the next document is, and writes its text.
"""
