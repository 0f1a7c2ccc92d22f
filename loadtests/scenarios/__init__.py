"""The scenarios, in the order in which `make load` runs them: one file each, with its own shape of load and its own faults.

What each must reach is in `loadtests/load/thresholds.yaml`.
"""

from loadtests.scenarios import (
    cold_start,
    invalidation_storm,
    lost_cell,
    lost_memcached,
    overload,
    rolling_restart,
    slow_origin,
    stampede,
    steady,
)

_ORDERED = (
    steady,
    stampede,
    cold_start,
    invalidation_storm,
    lost_memcached,
    lost_cell,
    slow_origin,
    overload,
    rolling_restart,
)
SCENARIOS = {module.SCENARIO.name: module.SCENARIO for module in _ORDERED}
