"""The keys that are read most and the largest values, from a sample of the reads.

Start reading at `hot_keys.py`.
"""
