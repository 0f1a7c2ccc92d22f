"""What callers may ask, read from headers and bodies and refused at the door. Start reading at `options.py`."""
