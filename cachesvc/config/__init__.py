"""The two documents that configure a deployment, read into frozen structs and refused with the path and the reason.

Every package but `model` may import this one; it imports only `model`.
Start reading at `service.py` (one instance) and `topology.py` (what all instances share); docs/reference.md lists every field.
"""
