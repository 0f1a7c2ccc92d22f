"""`cachesvc report`: what each namespace gets out of the cache, summed over a deployment.

Only `commands/command_line.py` imports this package. Start reading at `command.py`; `figures.py`
has the arithmetic.
"""
