"""The cell's Lua scripts, as package data. `prelude.lua` stands in front of each; `../script.py` loads them."""
