"""The OTLP resource: traces and metrics of one instance are exported under the same one."""

from importlib.metadata import version

from opentelemetry.sdk.resources import Resource

from cachesvc.config.service import Service

VERSION = version("cachesvc")
"""The installed version. It is read once, because each look-up reads a file."""


def resource_of(service: Service) -> Resource:
    """The instance's resource, with the attributes that `OTEL_RESOURCE_ATTRIBUTES` adds."""
    return Resource.create(
        {
            "service.name": "cachesvc",
            "service.version": VERSION,
            "service.instance.id": f"{service.region}/{service.instance}",
            "cloud.region": service.region,
            "cachesvc.region": service.region,
        }
    )
