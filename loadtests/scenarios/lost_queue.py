"""The queue of one region stops answering and later goes on.

Invalidations at the region's instances are refused meanwhile, those at the other region's go on.
No instance hears of fences from that region, so copies older than `max_lag` are refused everywhere,
and the origin gets more loads.
"""

from loadtests.load.faults import Stopped
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="lost_queue",
    about="the queue of region eu is stopped for 17 s and then goes on",
    main="lost",
    legs=(
        Leg(
            "load",
            seconds=48,
            rate=150.0,  # leaves the machine room for the loads
            faults=(At(16, 33, Stopped("queue-eu")),),
            stretches=(Stretch("quiet", 8, 16), Stretch("lost", 17, 33), Stretch("after", 39, 48)),
        ),
    ),
)
