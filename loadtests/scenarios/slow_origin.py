"""The origin takes 1.5 s instead of 20 ms, three times the soft deadline.

Copies must be answered stale, and promptly. A few writers go on: what they invalidate cannot be
answered stale and must be loaded, and hot keys are invalidated faster than a load takes.
"""

from loadtests.load.faults import OriginDoes
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

BEFORE = {"latency": "20ms", "cache_control": "max-age=5, stale-while-revalidate=60"}

SCENARIO = Scenario(
    name="slow_origin",
    about="the origin answers after 1.5 s for 20 s; copies are fresh for 5 s",
    origin=BEFORE,
    main="slow",
    legs=(
        Leg(
            "load",
            seconds=60,
            users=800,
            mix="http=12,sdk=6,writer=1",
            keys="zipf:1000:1.1",
            faults=(
                At(20, 40, OriginDoes("origin takes 1.5 s", {"latency": "1500ms"}, {"latency": "20ms"})),
            ),
            stretches=(Stretch("quiet", 12, 20), Stretch("slow", 22, 40), Stretch("after", 45, 60)),
        ),
    ),
)
