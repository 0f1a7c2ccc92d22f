"""Load on the real service: scenarios with verdicts, and benchmarks.

    load/, scenarios/   locust users, faults, and limits: `make load`
    bench/              our code beside other code, and costs: `make bench`
    fleet*.py           a whole topology of real servers on this machine
    origin.py           the reference origin; documents.py has the form of its documents
    demo.py, replay.py  a tour of the tiers (`make demo`), and a trace replayed through the SDK

Tests may import this package; `cachesvc` must not. Start reading at `fleet.py` and
`load/__init__.py`.
"""
