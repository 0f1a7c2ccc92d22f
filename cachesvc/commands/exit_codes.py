"""The exit codes of a command that was ended from outside, as a shell reports both."""

INTERRUPTED = 130
"""Ctrl-C ended it."""
OUTPUT_CLOSED = 141
"""The reader of its output left."""
