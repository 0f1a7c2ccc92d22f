"""Which keys are read most and which values are largest, from a sample. Start reading at `hot_keys.py`."""
