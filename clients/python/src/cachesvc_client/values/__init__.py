"""Values and what goes with them: codecs, lifetimes, durations, templates for keys.

Every package of the SDK except `tracing` and `instances` may import it; it imports `protocol` and
`errors`. Read `codecs.py` first.
"""
