"""The Redis of one cell stops answering and later goes on.

A quarter of the keys has no home cell meanwhile. Their copies in L1 and L2 are still good. A key
that is in neither is loaded without a lease, so the origin gets more loads. An invalidation of
such a key takes effect at once, and is applied in the cell when the cell is back.
"""

from loadtests.load.faults import Stopped
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="lost_cell",
    about="the Redis of cell eu-1 is stopped for 20 s and then goes on",
    main="lost",
    legs=(
        Leg(
            "load",
            seconds=60,
            faults=(At(20, 40, Stopped("cell-eu-1")),),
            stretches=(Stretch("quiet", 10, 20), Stretch("lost", 21, 40), Stretch("after", 46, 60)),
        ),
    ),
)
