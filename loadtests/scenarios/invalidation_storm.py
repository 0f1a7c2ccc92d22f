"""Hundreds of invalidations per second of the keys that are read.

No answer may be too stale, and reads must go on. A key that is read after its invalidation must
be loaded again, so origin loads rise with the storm; they must not rise further than that.
"""

from loadtests.load.faults import InvalidationStorm
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

KEYS = "zipf:2000:1.1"

SCENARIO = Scenario(
    name="invalidation_storm",
    about="200 keys a second, drawn as those that are read, are invalidated for 20 s",
    main="storm",
    legs=(
        Leg(
            "storm",
            seconds=55,
            keys=KEYS,
            faults=(At(20, 40, InvalidationStorm(per_second=50, keys_each=4, keys=KEYS)),),
            stretches=(Stretch("quiet", 10, 20), Stretch("storm", 22, 40), Stretch("after", 44, 55)),
        ),
    ),
)
