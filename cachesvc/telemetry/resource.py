"""Who reports: traces and metrics of one instance are exported under the same resource."""

from importlib.metadata import version

from opentelemetry.sdk.resources import Resource

from cachesvc.config import Service

VERSION = version("cachesvc")
"""Read once: it stands in a file."""


class InstanceResource(Resource):
    """Compared as the object it is. The encoder sorts every span by its resource, and `Resource` makes its hash from JSON each
    time: 5 µs, a fifth of what exporting a span costs."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def resource_of(service: Service) -> Resource:
    """With what `OTEL_RESOURCE_ATTRIBUTES` adds, as everywhere in OpenTelemetry."""
    made = Resource.create(
        {
            "service.name": "cachesvc",
            "service.version": VERSION,
            "service.instance.id": f"{service.region}/{service.instance}",
            "cloud.region": service.region,
            "cachesvc.region": service.region,
        }
    )
    return InstanceResource(made.attributes, made.schema_url)
