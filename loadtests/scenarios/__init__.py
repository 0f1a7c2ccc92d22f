"""The scenarios, in the order in which `make load` runs them.

Each has a file of its own, with its shape of load and its faults. The limits that each must keep
stand in `loadtests/load/thresholds.yaml`.
"""

from loadtests.scenarios import (
    cold_start,
    invalidation_storm,
    lost_cell,
    lost_memcached,
    lost_queue,
    noisy_neighbour,
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
    lost_queue,
    slow_origin,
    overload,
    noisy_neighbour,
    rolling_restart,
)
SCENARIOS = {module.SCENARIO.name: module.SCENARIO for module in _ORDERED}
