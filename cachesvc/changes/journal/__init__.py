"""The journal: changes that an instance could not announce, on its own disk.

Start reading at `journal.py`; `file.py` is the file, and `records.py` says what stands in it.
"""
