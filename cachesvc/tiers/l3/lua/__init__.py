"""The cell's Lua scripts, as package data; `../script.py` loads them.

`prelude.lua` stands before every script but `attach` and `inspect`.
"""
