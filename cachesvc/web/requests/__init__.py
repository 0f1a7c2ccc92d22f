"""Requests, read from headers and bodies and refused if they are out of rule.

Start reading at `options.py`.
"""
