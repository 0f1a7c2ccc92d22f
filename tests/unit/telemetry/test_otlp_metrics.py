"""Exporting metrics: what is sent, what an outage costs, and that stopping takes no longer than it says."""

import asyncio
import logging
import threading

import pytest
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource

from cachesvc.telemetry.metrics import otlp_metrics
from cachesvc.telemetry.metrics.histogram import Histogram
from cachesvc.telemetry.metrics.metrics import Reading
from cachesvc.telemetry.metrics.otlp_metrics import MetricsExport, metrics_data
from cachesvc.telemetry.metrics.table import Metric

RESOURCE = Resource({"service.name": "cachesvc"})
TOOK = Histogram((1.0, 2.0), [0, 1, 0], 1.5)
READINGS = (
    Reading(Metric("asked", "counter", "", "", "Asked.", ("who",)), ((("a",), 1), (("b",), 2))),
    Reading(Metric("size", "gauge", "", "", "Held.", (), "bytes"), (((), 7),)),
    Reading(Metric("took", "histogram", "", "", "Took.", (), "seconds"), (((), TOOK),)),
    Reading(Metric("silent", "gauge", "", "", "Nothing is known."), ()),
)


class FakeExporter(sdk.MetricExporter):
    """Takes what it is given; `gate` closed, it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.result = sdk.MetricExportResult.SUCCESS
        self.taken: list[sdk.MetricsData] = []
        self.gate = threading.Event()
        self.gate.set()
        self.third = threading.Event()
        self.is_shut = False

    def export(
        self, metrics_data: sdk.MetricsData, timeout_millis: float = 0, **_: object
    ) -> sdk.MetricExportResult:
        self.gate.wait()
        self.taken.append(metrics_data)
        if len(self.taken) == 3:
            self.third.set()
        return self.result

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: object) -> None:
        self.is_shut = True


def sent(data: sdk.MetricsData) -> list[sdk.Metric]:
    return list(data.resource_metrics[0].scope_metrics[0].metrics)


def test_each_kind_of_row_is_the_sdks_kind_with_the_unit_of_opentelemetry() -> None:
    asked, size, took = sent(metrics_data(READINGS, RESOURCE, 1, 2))
    assert (asked.name, asked.unit, asked.description) == ("cachesvc_asked", "", "Asked.")
    assert isinstance(asked.data, sdk.Sum)
    assert asked.data.is_monotonic
    assert [(dict(point.attributes or {}), point.value) for point in asked.data.data_points] == [
        ({"who": "a"}, 1),
        ({"who": "b"}, 2),
    ]
    assert [(point.start_time_unix_nano, point.time_unix_nano) for point in asked.data.data_points] == [
        (1, 2)
    ] * 2
    assert isinstance(size.data, sdk.Gauge)
    assert (size.unit, size.data.data_points[0].value) == ("By", 7)
    assert isinstance(took.data, sdk.Histogram)
    (point,) = took.data.data_points
    assert (point.count, point.sum, point.bucket_counts, point.explicit_bounds) == (
        1,
        1.5,
        (0, 1, 0),
        (1.0, 2.0),
    )


async def test_stopping_exports_once_more() -> None:
    exporter = FakeExporter()
    export = MetricsExport(lambda: READINGS, "http://receiver", RESOURCE, 3600, exporter=exporter)
    await export.start()
    await export.stop()
    assert [metric.name for metric in sent(exporter.taken[0])] == [
        "cachesvc_asked",
        "cachesvc_size",
        "cachesvc_took",
    ]
    assert exporter.is_shut


async def test_a_receiver_that_is_away_is_counted_each_time_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = FakeExporter()
    exporter.result = sdk.MetricExportResult.FAILURE
    export = MetricsExport(lambda: READINGS, "http://receiver", RESOURCE, 0.001, exporter=exporter)
    with caplog.at_level(logging.WARNING, "cachesvc.telemetry.otlp_metrics"):
        await export.start()
        assert await asyncio.to_thread(exporter.third.wait, 10)
        await export.stop()
    assert export.tally.failed >= 3
    assert [record.message for record in caplog.records] == [
        "the receiver of metrics at http://receiver fails: metrics are tried again with the next export"
    ]


async def test_a_receiver_that_hangs_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_metrics, "STOP_SECONDS", 0.01)
    exporter = FakeExporter()
    exporter.gate.clear()
    export = MetricsExport(lambda: READINGS, "http://receiver", RESOURCE, 3600, exporter=exporter)
    await export.start()
    await export.stop()
    assert exporter.is_shut
    assert not exporter.taken
    exporter.gate.set()


@pytest.mark.looptime
async def test_numbers_that_cannot_be_read_do_not_end_the_exports() -> None:
    def unreadable() -> tuple[Reading, ...]:
        raise AttributeError("of a defect")

    export = MetricsExport(unreadable, "http://otlp.test", RESOURCE, 10.0, exporter=FakeExporter())
    running = asyncio.create_task(export._run())
    await asyncio.sleep(31)
    assert export.loop.failures == 3
    running.cancel()
