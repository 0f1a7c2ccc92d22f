"""A deploy: each instance is stopped and started again while callers go on.

Callers of the SDK must not notice.
"""

from loadtests.load.faults import RollingRestart
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="rolling_restart",
    about="every instance in turn gets SIGTERM and is started again",
    main="restarts",
    legs=(
        Leg(
            "load",
            seconds=60,
            mix="http=1,sdk=3",
            faults=(At(18, 42, RollingRestart(pause_seconds=2)),),
            stretches=(Stretch("quiet", 8, 18), Stretch("restarts", 18, 44), Stretch("after", 48, 60)),
        ),
    ),
)
