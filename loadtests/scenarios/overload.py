"""Three times as many requests as the service can answer: it goes on answering what it can, and says no to the rest.

What it can answer is measured first, by callers that ask again as soon as they are answered. Then requests come three times as
fast, whether answered or not, and at last at half the speed: it must recover by itself.
"""

from loadtests.scenarios.scenario import Leg, Scenario, Stretch, Times

MIX, KEYS = "http=1", "zipf:2000:1.1"

SCENARIO = Scenario(
    name="overload",
    about="3 × the requests that it can answer, for 20 s",
    main="overload",
    legs=(
        Leg("measure", seconds=16, users=64, rate=0, mix=MIX, keys=KEYS, stretches=(Stretch("saturation", 6, 16),)),
        Leg(
            "overload",
            seconds=20,
            users=3000,
            timeout=1.0,
            rate=Times(3, "saturation"),
            mix=MIX,
            keys=KEYS,
            stretches=(Stretch("overload", 5, 20),),
        ),
        Leg(
            "relief",
            seconds=12,
            users=300,
            rate=Times(0.5, "saturation"),
            mix=MIX,
            keys=KEYS,
            stretches=(Stretch("relief", 4, 12),),
        ),
    ),
)
