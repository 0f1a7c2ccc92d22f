"""The queue's Lua scripts, as package data; `../server.py` loads them.

`prelude.lua` stands before each of the other scripts.
"""
