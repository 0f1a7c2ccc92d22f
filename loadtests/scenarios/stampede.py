"""One key that everybody reads expires every two seconds, and its load takes a while.

It must be loaded once each time. No stale copy may be answered and nothing is refreshed early, so
all readers meet the miss together: on four instances in two regions, with one lease.
"""

from loadtests.scenarios.scenario import Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="stampede",
    about="a hot key expires every 2 s under load, and its load takes 200 ms",
    origin={"latency": "200ms", "cache_control": "max-age=2, stale-while-revalidate=0, stale-if-error=0"},
    namespace={"early_refresh": 0, "jitter": 0, "stale_while_revalidate": "0s"},
    legs=(
        Leg(
            "stampede",
            seconds=40,
            mix="http=2,sdk=1",
            keys="hot:front-page",
            rate=400,
            stretches=(Stretch("stampede", 4, 40),),
        ),
    ),
)
