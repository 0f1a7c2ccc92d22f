"""`cachesvc pool`: adds, removes and replaces memcached servers in the topology document.

Start reading at `command.py`.
`edit.py` changes the text of a document and nothing else of it.
"""
