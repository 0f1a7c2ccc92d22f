"""`cachesvc top`: scrapes a whole deployment twice and says what is wrong and what moves.

Only `cli.py` imports this package. Start reading at `command.py`; `verdict.py` has the sentences.
"""
