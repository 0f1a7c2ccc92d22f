"""Shares of limits that hold for a whole region, leased from the region's queue.

`share.py` has the rule of one share, `leasing.py` renews the shares of an instance, and
`contract.py` says what hands them out. Start reading at `share.py`.
"""
