"""One module per group of routes: entries, batches, invalidations, the fence stream, probes. `../routing.py` chooses."""
