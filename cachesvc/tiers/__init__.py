"""The tiers, which keep copies, and the origin behind them.

None of the four knows another one.

`l1`, `l2`, `l3` and `origin` each have a contract, which `coherence`, `changes`, `explain`, `paths`
and `app` import; only `app` imports the classes that talk to servers. Start reading at the
`contract.py` of a tier. `batching.py` makes single requests of many callers leave together.

`clean_connector.py` (HTTP), `redis_connections.py` and `arrivals.py` see to it that an answer is
taken only from a connection on which nothing arrived unasked; peers, queues and commands use them.
"""
