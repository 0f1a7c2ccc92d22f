"""The load: locust users that read, write and invalidate, and a record of every second.

The runner of scenarios starts `locust -f loadtests/load/locustfile.py --headless …` as a process
of its own. The settings of `settings.py` are in the process's environment; `samples.jsonl` and
`summary.json` (`recording.py`) come from its folder `LOAD_OUT`.

Locust patches the standard library for gevent when it is imported. Therefore no module that
`locustfile.py` imports may import `cachesvc`, its servers or uvloop. Of these modules only
`users*.py`, `process.py` and `changes.py` use gevent; the others are tested without it.
"""
