"""The places where copies are kept, and the origin behind them: `l1`, `l2`, `l3`, `origin`, which know nothing of each other.

`coherence`, `changes`, `explain`, `paths` and `app` import their contracts; only `app` imports the classes that talk to servers.
Start reading at the `contract.py` of a tier; `batching.py` makes many single requests to a server leave together.
"""
