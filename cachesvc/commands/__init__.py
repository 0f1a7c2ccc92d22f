"""One module or package per command, and what several commands share.

Only `cli.py` imports this package; it may import everything below it. Start reading at
`command_line.py`, the table of commands, and `serve.py`. `check/`, `top/`, `explain.py` and
`publish.py` look at a deployment from outside, over HTTP and its queues. `reference.py` writes
docs/reference.md.
"""
