"""Explanations: a key's copies, the fences on it, what a read would do now, and why.

`web`, `app` and `commands` import this package; it reads coherence and tiers and changes nothing in
them.

Start reading at `explainer.py`; `answer.py` has the types of an explanation and `verdict.py` turns
it into sentences.
"""
