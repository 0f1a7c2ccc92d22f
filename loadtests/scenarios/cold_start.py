"""Full load on empty tiers: no key is loaded twice without need, and the cache fills.

There is no warm-up: the first second counts.
"""

from loadtests.scenarios.scenario import Leg, Scenario, Stretch

SCENARIO = Scenario(
    name="cold_start",
    about="full load on empty tiers from the first second on",
    origin={"latency": "50ms"},
    legs=(
        Leg(
            "cold",
            seconds=40,
            rate=400,
            mix="http=2,sdk=1",
            keys="zipf:3000:1.1",
            stretches=(Stretch("cold", 0, 10), Stretch("filled", 20, 40), Stretch("whole", 0, 40)),
        ),
    ),
)
