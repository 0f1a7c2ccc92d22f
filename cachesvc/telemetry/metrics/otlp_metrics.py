"""Sends the numbers of the table of metrics to an OTLP receiver at an even interval.

    the loop: reads the table ──► the SDK's metric types
    a thread: OTLPMetricExporter encodes, sends, and tries again

The SDK's own meters and readers are not used: an instrument call costs 5 µs on the path where an
integer costs nothing, and the numbers would be a second set beside those of `/metrics`. Only one
export runs at a time: one that hangs delays the next export and no request.

Names are those of `/metrics` without the unit and without `_total`, because a collector that
writes to Prometheus adds both again. For the same reason a metric that is a plain number has no
unit here: with the unit "1" the collector would add `_ratio`.
"""

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from opentelemetry.exporter.otlp.proto.http import metric_exporter
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from cachesvc.telemetry.loops import Loop
from cachesvc.telemetry.metrics.histogram import Histogram
from cachesvc.telemetry.metrics.metrics import Reading, Sample
from cachesvc.telemetry.metrics.table import Metric
from cachesvc.telemetry.otlp_http import BoundedSession
from cachesvc.telemetry.outage import Outage

log = logging.getLogger(__name__)

SEND_SECONDS = 3.0
"""The time for one export with all its attempts.

The next export has the same numbers and newer ones, so a failed one is not kept.
"""
STOP_SECONDS = 2.0

_SCOPE = InstrumentationScope("cachesvc")
_CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1", "": ""}


class ExportTally(Struct):
    """Counts of the exports of metrics."""

    failed: int = 0
    """Exports that the receiver did not accept."""


class MetricsExport:
    """Exports the metrics until it is stopped. Call `start` once, then `stop` once."""

    def __init__(
        self,
        read: Callable[[], Sequence[Reading]],
        otlp: str,
        resource: Resource,
        interval_seconds: float,
        *,
        exporter: sdk.MetricExporter | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`read` returns the numbers of now; `otlp` is the receiver's base URL.

        `tls` stands in place of the certificate that the environment names.
        """
        # The exporter would log every attempt; `_outage` writes one line per outage instead.
        logging.getLogger(metric_exporter.__name__).setLevel(logging.CRITICAL)
        self.tally = ExportTally()
        self._read = read
        self._resource = resource
        self._interval_seconds = interval_seconds
        endpoint = f"{otlp.rstrip('/')}/v1/metrics"
        self._exporter = exporter or metric_exporter.OTLPMetricExporter(
            endpoint, timeout=SEND_SECONDS, session=BoundedSession(tls)
        )
        self._outage = Outage(f"the receiver of metrics at {otlp}", log)
        self.loop = Loop("export of metrics")
        self._started_ns = time.time_ns()
        self._task: asyncio.Task[None] | None = None
        self._sender: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<MetricsExport every {self._interval_seconds:g} s [{self.tally!r}, {self._outage!r}]>"

    async def start(self) -> None:
        """Starts the task that exports every `interval_seconds`."""
        self._task = asyncio.create_task(self._run(), name="export of metrics")

    async def stop(self) -> None:
        """Exports once more, then shuts the exporter down.

        These last numbers are given up after `STOP_SECONDS`, and not sent at all if the export before
        them still hangs.
        """
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._sender is None or not self._sender.is_alive():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._export()
        self._exporter.shutdown()

    async def _run(self) -> None:
        with self.loop.alive():
            while True:
                await asyncio.sleep(self._interval_seconds)
                await self.loop.once(self._export)

    async def _export(self) -> None:
        data = metrics_data(self._read(), self._resource, self._started_ns, time.time_ns())
        is_taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        # A daemon thread: one that hangs in the receiver's connection does not keep the process alive.
        self._sender = threading.Thread(
            target=self._send, args=(data, is_taken), name="export of metrics", daemon=True
        )
        self._sender.start()
        if await is_taken:
            self._outage.worked()
        else:
            self.tally.failed += 1
            self._outage.failed("metrics are tried again with the next export")

    # the thread -----------------------------------------------------------------------------------

    def _send(self, data: sdk.MetricsData, is_taken: "asyncio.Future[bool]") -> None:
        try:
            answer = self._exporter.export(data) is sdk.MetricExportResult.SUCCESS
        except Exception:
            # A mistake of ours. The next export has its own thread.
            log.exception("metrics could not be exported")
            answer = False
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            is_taken.get_loop().call_soon_threadsafe(_tell, is_taken, answer)


def metrics_data(
    readings: Iterable[Reading], resource: Resource, started_ns: int, now_ns: int
) -> sdk.MetricsData:
    """The readings in the SDK's types, as a copy: the counters go on counting meanwhile."""
    found = [
        _metric(reading.row, reading.samples, started_ns, now_ns) for reading in readings if reading.samples
    ]
    scope = sdk.ScopeMetrics(_SCOPE, found, "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], "")])


def _metric(row: Metric, samples: Iterable[Sample], started_ns: int, now_ns: int) -> sdk.Metric:
    data: sdk.Sum | sdk.Gauge | sdk.Histogram
    if row.kind == "histogram":
        points = [
            _distribution(dict(zip(row.labels, labels, strict=True)), value, started_ns, now_ns)
            for labels, value in samples
            if isinstance(value, Histogram)
        ]
        data = sdk.Histogram(points, _CUMULATIVE)
    else:
        numbers = [
            sdk.NumberDataPoint(dict(zip(row.labels, labels, strict=True)), started_ns, now_ns, value)
            for labels, value in samples
            if not isinstance(value, Histogram)
        ]
        data = (
            sdk.Sum(numbers, _CUMULATIVE, is_monotonic=True) if row.kind == "counter" else sdk.Gauge(numbers)
        )
    return sdk.Metric(f"cachesvc_{row.name}", row.help, _UNITS[row.unit], data)


def _distribution(
    attributes: dict[str, str], found: Histogram, started_ns: int, now_ns: int
) -> sdk.HistogramDataPoint:
    return sdk.HistogramDataPoint(
        attributes,
        started_ns,
        now_ns,
        sum(found.buckets),
        found.total,
        tuple(found.buckets),
        found.bounds,
        min=None,  # type: ignore[arg-type]  # optional in the protocol, and what is not known is left out
        max=None,  # type: ignore[arg-type]
    )


def _tell(is_taken: "asyncio.Future[bool]", answer: bool) -> None:
    if not is_taken.done():
        is_taken.set_result(answer)
