"""What people type: one module or package per command, and what several of them share.

Only `cli.py` imports this package; it may import everything below it.
Start reading at `serve.py`; `check/`, `top/`, `explain.py` and `publish.py` look at a deployment from outside, over HTTP.
"""
