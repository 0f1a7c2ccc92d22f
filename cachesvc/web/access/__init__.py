"""Identities, their grants, and the table of route → scope.

Start reading at `routes.py`; `door.py` finds the identity of a request.
"""
