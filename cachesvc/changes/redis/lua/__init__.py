"""The queue's Lua scripts, as package data. `prelude.lua` stands in front of each; `../server.py` loads them."""
