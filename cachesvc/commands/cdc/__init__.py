"""`cachesvc cdc`: PostgreSQL as a source of changes. Start reading at `command.py`."""
