"""One memcached server of a region is killed and comes back empty.

L3 has what the server held, so callers and the origin notice little.
"""

from loadtests.load.faults import Killed
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="lost_memcached",
    about="memcached-eu-m1 is killed for 20 s and comes back empty",
    main="lost",
    legs=(
        Leg(
            "load",
            seconds=55,
            faults=(At(20, 40, Killed("memcached-eu-m1")),),
            stretches=(Stretch("quiet", 10, 20), Stretch("lost", 21, 40), Stretch("after", 44, 55)),
        ),
    ),
)
