"""A multi-tier cache service: eleven packages, one idea each; imports only run down.

    cli → commands   the commands that people type: serve, check, explain, report, top and others
          app        the composition root: one instance, its backends, the embedded set-up
          web        HTTP: server, routing, requests, handlers, replies
          paths      reading, writing, invalidating: flights, loads, the near tiers
          changes    from a change to every instance: announce, apply, consume, feed, broadcast
          explain    why a read is answered as it is, in words
          coherence  the one rule: fences, admission, merging
          tiers      L1, L2, L3 and the origin, each behind a contract of its own
          telemetry  metrics, traces, logs, popular keys, the dashboard
          config     the two documents: service and topology
          model      the words of the protocol as values; no I/O

`web` and `paths` do not import each other, nor do `changes` and `explain`. import-linter holds
all of this in `make lint`. docs/map.md answers a newcomer's questions in one line each;
docs/coherence.md has the correctness rule.
"""
