"""Every metric, in one table, with what counts them and what exports them. Start reading at `table.py`."""
