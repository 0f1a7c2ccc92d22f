"""The origin: where values come from when no tier has them.

Values are loaded by HTTP, under a limit of loads at a time. Start reading at `contract.py`, then
`http.py`.
"""
