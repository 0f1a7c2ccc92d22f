"""Events of producers as changes: CloudEvents of our own type, and rows from Debezium.

`changes` and `commands` import this package. Start reading at `event_parser.py`, which tells the
formats apart.
"""
