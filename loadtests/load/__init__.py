"""The load: locust users that read, write and invalidate through the service, and what was seen of each second.

The runner of scenarios starts `locust -f loadtests/load/locustfile.py --headless …` as a process of its own, with the settings
of `settings.py` in its environment, and reads `samples.jsonl` and `summary.json` (`recording.py`) from its `LOAD_OUT`.

Locust patches the standard library for gevent when it is imported. So what `locustfile.py` imports never imports `cachesvc`, its
servers or uvloop; and of it only `users*.py`, `process.py` and `changes.py` know of gevent, the rest is tested without.
"""
