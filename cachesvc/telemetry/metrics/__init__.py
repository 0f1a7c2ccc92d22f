"""Every metric in one table, what counts the numbers, and what exports them.

Start reading at `table.py`.
"""
