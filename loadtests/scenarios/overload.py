"""Three times as many requests as the service can answer.

The service must go on answering what it can, and refuse the rest.

One instance gets all requests, on a core without the load generator. Each request asks for a
hundred keys that are not in the instance's small L1. It costs 1.5 ms of the instance's time and a
third of that of the load generator's, so the instance is the part that is overloaded. A first leg
measures what the instance can answer, with callers that ask again as soon as they are answered.
Then requests come three times as fast, whether answered or not. At last they come at half the
speed, and the instance must recover by itself. A few invalidations come along; they must not be
refused.
"""

from loadtests.load.arrivals import Times
from loadtests.scenarios.scenario import Leg, Scenario, Stretch

READS, WITH_WRITER = "bulk=1", "bulk=100,writer=1"
KEYS = "scan:5000"

SCENARIO = Scenario(
    name="overload",
    about="3 × the requests that it can answer, for 20 s",
    main="overload",
    bottleneck="eu-a",
    settings={"CACHESVC_L1_MAX_ENTRIES": "100"},
    namespace={"ttl": "10m"},
    legs=(
        Leg(
            "measure",
            seconds=16,
            users=32,
            rate=0,
            mix=READS,
            keys=KEYS,
            stretches=(Stretch("saturation", 6, 16),),
        ),
        Leg(
            "overload",
            seconds=20,
            users=2500,
            timeout=1.0,
            rate=Times(3, "saturation"),
            mix=WITH_WRITER,
            keys=KEYS,
            stretches=(Stretch("overload", 5, 20),),
        ),
        Leg(
            "relief",
            seconds=12,
            users=300,
            rate=Times(0.5, "saturation"),
            mix=WITH_WRITER,
            keys=KEYS,
            stretches=(Stretch("relief", 4, 12),),
        ),
    ),
)
