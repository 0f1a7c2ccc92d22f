"""What locust is started with: the kinds of users of `LOAD_MIX`, and the recording of what they see.

    LOAD_URLS=http://127.0.0.1:8101,http://127.0.0.1:8102 LOAD_MIX=http=8,writer=1 LOAD_RATE=300 LOAD_OUT=.run/load \\
      locust -f loadtests/load/locustfile.py --headless --users 50 --spawn-rate 50 --run-time 10s

Locust takes the classes it finds in this module; their shares of the users are their weights. `loadtests/README.md` has the rest.
"""

import os
from typing import Any

from locust import events
from locust.env import Environment

from loadtests.load.changes import ChangeError
from loadtests.load.process import attach
from loadtests.load.settings import Settings, settings_of
from loadtests.load.users import Visitor
from loadtests.load.users_http import BulkReader, HttpReader, HttpVisitor, Writer


def classes_of(settings: Settings) -> dict[str, type[Visitor]]:
    """A class for each kind in the mix, by its name."""
    kinds: list[type[Visitor]] = [HttpReader, BulkReader, Writer]
    if "sdk" in settings.mix:
        # Only then: a mix without it needs no SDK.
        from loadtests.load.users_sdk import SdkReader

        kinds.append(SdkReader)
    HttpVisitor.network_timeout = HttpVisitor.connection_timeout = settings.timeout
    shares = {kind: settings.mix[kind.kind] for kind in kinds if kind.kind in settings.mix}
    return {
        kind.__name__: type(
            kind.__name__, (kind,), {"abstract": False, "weight": weight, "host": settings.urls[0]}
        )
        for kind, weight in shares.items()
    }


def begin(environment: Environment, **_: Any) -> None:
    try:
        attach(SETTINGS, environment)
    except ChangeError as error:  # locust goes on after any other exception here
        raise SystemExit(f"load: {error}") from error


try:
    SETTINGS = settings_of(os.environ)
except ValueError as wrong:
    raise SystemExit(f"load: {wrong}") from wrong
globals().update(classes_of(SETTINGS))
events.init.add_listener(begin)
