"""`cachesvc top`: scrapes a whole deployment twice, and shows what is wrong and what
changes.

Only `commands/command_line.py` imports this package. Start reading at `command.py`; `verdict.py`
has the sentences.
"""
