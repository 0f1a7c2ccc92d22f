"""A namespace scans, then overloads, then floods its origin, beside a steady one.

Both share one instance, on a core without the load generators. The steady one has a room in L1,
rates and an origin budget, and all that it reads has space in its room. Its figures alone, before
the noise, are what those beside the noise are compared with. The noisy one has an origin budget.

- It scans ten times as many keys as L1 holds; L2 and L3 have all of them.
- It asks three times as often as the instance can answer. That rate is measured in a first leg.
- It asks for keys that nobody ever read, ten times as often as its origin budget allows.
"""

from loadtests.load.arrivals import Times
from loadtests.load.faults import Neighbour
from loadtests.scenarios.scenario import At, Leg, Scenario, Stretch

NAMESPACE, NOISY = "load", "noisy"
L1_DOCUMENTS = 1_200
"""More documents of 512 bytes than the whole L1 holds, see `runner_stage.SETTINGS`."""
SCANNED = 10 * L1_DOCUMENTS
KEPT = 500
"""The documents that the steady namespace reads: about 500 KiB in L1."""
KEYS_EACH = 100
BUDGET = 40.0
"""Loads per second of the noisy namespace."""

SCENARIO = Scenario(
    name="noisy_neighbour",
    about="another namespace scans, asks 3 × what can be answered, and floods its origin",
    main="overload",
    bottleneck="eu-a",
    origin={"latency": "20ms", "cache_control": "max-age=600"},
    namespace={
        "ttl": "10m",
        "jitter": 0,
        "early_refresh": 0,
        "l1": {"guaranteed": "640KiB"},
        "rates": {"reads": {"per_second": 50_000}, "invalidations": {"per_second": 500}},
        "origin_budget": {"loads_per_second": 200, "concurrency": 64},
    },
    others={
        NOISY: {
            "ttl": "10m",
            "jitter": 0,
            "early_refresh": 0,
            "origin_budget": {"loads_per_second": BUDGET, "burst": BUDGET},
        }
    },
    stored={NOISY: SCANNED, NAMESPACE: KEPT},
    legs=(
        Leg(
            "measure",
            seconds=12,
            users=32,
            rate=0,
            mix="bulk=1",
            keys=f"scan:{SCANNED}",
            namespace=NOISY,
            stretches=(Stretch("saturation", 4, 12),),
        ),
        Leg(
            "load",
            seconds=60,
            users=300,
            timeout=2.0,
            rate=Times(0.2, "saturation"),
            mix="bulk=30,writer=1",
            keys=f"zipf:{KEPT}:1.1",
            faults=(
                At(14, 26, Neighbour("scan", NOISY, f"scan:{SCANNED}", 20, KEYS_EACH)),
                At(
                    27, 41, Neighbour("overload", NOISY, f"scan:{SCANNED}", Times(3, "saturation"), KEYS_EACH)
                ),
                At(46, 59, Neighbour("origin flood", NOISY, "scan:1000000", 10 * BUDGET, prefix="new-")),
            ),
            stretches=(
                Stretch("alone", 4, 14),
                Stretch("scan", 16, 26),
                Stretch("overload", 31, 41),
                Stretch("flood", 49, 59),
            ),
        ),
    ),
)
