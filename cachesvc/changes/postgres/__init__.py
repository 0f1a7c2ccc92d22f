"""PostgreSQL as a source of changes: its logical replication, read by this service.

`commands` imports this package. Start reading at `reader.py`, which has the way of a transaction
from the slot to the queue. Only `connection.py` and `catalog.py` know the driver (psycopg, the
extra `cachesvc[postgres]`).
"""
