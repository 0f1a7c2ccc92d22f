"""The one rule about every copy of every tier: fences, their sketch, admission, merging.

`changes`, `explain`, `paths` and `app` import this package; nothing in it awaits, and it knows no
server.

Start reading at `fences.py`, the rule on one instance; docs/coherence.md says why the rule is
enough.
"""
