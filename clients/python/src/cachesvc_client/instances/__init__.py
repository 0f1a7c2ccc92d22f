"""The service's instances as a client sees them: which to ask, and how often; no I/O.

All parts to the left of it in the picture of the root package may import it. Start with region.py.
"""
