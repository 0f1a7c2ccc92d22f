"""Writes the dashboard to standard output.

python -m cachesvc.telemetry.dashboard > config/grafana/cachesvc.json
"""

import sys

from cachesvc.telemetry.dashboard.grafana import as_text, dashboard

sys.stdout.write(as_text(dashboard()))
