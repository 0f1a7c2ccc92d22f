"""The metrics of `cachesvc check --watch`, and the port on which they are served."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from cachesvc.commands.check.history import Read, region_of

_LAGS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.6, 5.0, 10.0, 60.0)
"""Buckets in seconds. The first is for writes that no later read missed; 2.6 s is the
bound of the default settings."""


class WatchMetrics:
    """The metrics, in a registry of their own. Labels are regions, tiers, instances and
    checks, so they are few, and never keys."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.staleness = Histogram(
            "cachesvc_check_staleness_seconds",
            "From the commit of a canary write to the start of the last read that missed it; 0 if none did.",
            ("region", "tier"),
            buckets=_LAGS,
            registry=self.registry,
        )
        self.merge_lag = Histogram(
            "cachesvc_check_merge_lag_seconds",
            "From the publication of a sampled fence, by its queue's clock,"
            " to an instance's word that it has merged it.",
            ("region", "instance"),
            buckets=_LAGS,
            registry=self.registry,
        )
        self.reads = self._counter("reads", "Canary reads.", "region", "outcome")
        self.stale_reads = self._counter(
            "stale_reads", "Canary reads that missed a committed write: most are lawful.", "region", "tier"
        )
        self.violations = self._counter(
            "violations", "Reads and loads that broke a check. Alert on any.", "check"
        )
        self.announcements = self._counter("announcements", "Attempts to announce a canary write.", "outcome")
        self.resets = self._counter(
            "feed_resets", "Times an instance told its followers to drop everything.", "instance"
        )
        self.rounds = self._counter("rounds", "Canary writes that were followed to the end.")
        self.instances = Gauge(
            "cachesvc_check_instances",
            "Instances, by whether they answer.",
            ("state",),
            registry=self.registry,
        )
        self.last_round = Gauge(
            "cachesvc_check_last_round_timestamp_seconds",
            "When the last round ended. Alert if it stands still.",
            registry=self.registry,
        )
        self.run_info = Gauge(
            "cachesvc_check_run_info",
            "1; the labels say what is watched.",
            ("namespace", "run_id", "max_lag"),
            registry=self.registry,
        )

    def count_read(self, read: Read) -> None:
        self.reads.labels(region_of(read.instance), read.outcome).inc()

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[None]:
        """Answers scrapes on another thread within the context.

        Raises `OSError` if the address cannot be listened on. Blocks, so it must not be called on
        the loop.
        """
        server, thread = start_http_server(port, host, self.registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"cachesvc_check_{name}", help_, labels, registry=self.registry)
