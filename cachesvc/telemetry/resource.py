"""Who reports: traces and metrics of one instance are exported under the same resource."""

from importlib.metadata import version

from opentelemetry.sdk.resources import Resource

from cachesvc.config.service import Service

VERSION = version("cachesvc")
"""Read once: it stands in a file."""


def resource_of(service: Service) -> Resource:
    """With what `OTEL_RESOURCE_ATTRIBUTES` adds, as everywhere in OpenTelemetry."""
    return Resource.create(
        {
            "service.name": "cachesvc",
            "service.version": VERSION,
            "service.instance.id": f"{service.region}/{service.instance}",
            "cloud.region": service.region,
            "cachesvc.region": service.region,
        }
    )
