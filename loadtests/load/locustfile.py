"""The file that locust is started with.

It defines a class for each kind of user in `LOAD_MIX`, and attaches the recording.

    LOAD_URLS=http://127.0.0.1:8101,http://127.0.0.1:8102 LOAD_MIX=http=8,writer=1 \\
      LOAD_RATE=300 LOAD_OUT=.run/load \\
      locust -f loadtests/load/locustfile.py --headless --users 50 --spawn-rate 50 --run-time 10s

Locust takes the classes that it finds in this module; their shares of the users are their
weights. More is in `loadtests/README.md`.
"""

import os
from typing import Any

from locust import events, runners
from locust.env import Environment

from loadtests.load.changes import ChangeError
from loadtests.load.process import attach
from loadtests.load.settings import Settings, settings_of
from loadtests.load.users import Visitor
from loadtests.load.users_http import BulkReader, HttpReader, HttpVisitor, Writer


def classes_of(settings: Settings) -> dict[str, type[Visitor]]:
    """A class for each kind in the mix, by the class's name."""
    kinds: list[type[Visitor]] = [HttpReader, BulkReader, Writer]
    if "sdk" in settings.mix:
        # Imported only here: a mix without this kind needs no SDK.
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
    """Attaches the recording; ends the process if the origin is out of reach."""
    try:
        attach(SETTINGS, environment)
    except ChangeError as error:  # locust goes on after any other exception here
        raise SystemExit(f"load: {error}") from error


try:
    SETTINGS = settings_of(os.environ)
except ValueError as wrong:
    raise SystemExit(f"load: {wrong}") from wrong
# A worker on a busy machine is silent for longer than three seconds, and not missing.
runners.HEARTBEAT_LIVENESS = 30
globals().update(classes_of(SETTINGS))
events.init.add_listener(begin)
