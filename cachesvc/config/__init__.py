"""The two documents that configure a deployment, as frozen structs.

Every package but `model` may import this one; it imports only `model`. Start reading at
`service.py` (one instance) and `topology.py` (shared by all instances); docs/reference.md lists
every field.
"""
