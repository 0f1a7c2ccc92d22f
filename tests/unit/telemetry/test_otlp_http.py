import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cachesvc.config.service import Service
from cachesvc.telemetry.otlp_http import BoundedSession, NotTakenError, Receiver
from cachesvc.telemetry.resource import resource_of
from cachesvc.telemetry.traces.otlp_spans import encoded, resource_message
from cachesvc.telemetry.traces.trace import Span, SpanContext
from tests.doubles.certificates import Authority
from tests.doubles.otlp import OtlpReceiver

MESSAGE = encoded(
    [Span("cache.get", "server", SpanContext(1, 2, True), None)], resource_message(resource_of(Service()))
)


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def test_what_is_posted_is_received_with_the_headers_of_the_environment(otlp: OtlpReceiver) -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20token,x-tenant=a"}
    Receiver(f"{otlp.url}/v1/traces", environ).post(MESSAGE)
    assert [span.name for span in otlp.spans()] == ["cache.get"]
    (headers,) = otlp.headers
    assert (headers["authorization"], headers["x-tenant"]) == ("Bearer token", "a")
    assert headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("status", "is_final"), [(400, True), (401, True), (404, True), (500, True), (429, False), (503, False)]
)
def test_which_refusals_are_final(otlp: OtlpReceiver, status: int, is_final: bool) -> None:
    otlp.status = status
    with pytest.raises(NotTakenError, match=str(status)) as raised:
        Receiver(f"{otlp.url}/v1/traces", {}).post(MESSAGE)
    assert raised.value.is_final is is_final


def test_who_is_not_there_may_be_later() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(NotTakenError, match="refused") as raised:
            Receiver(f"http://127.0.0.1:{taken.getsockname()[1]}/v1/traces", {}).post(MESSAGE)
    assert not raised.value.is_final


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_receiver_of_a_known_authority_is_sent_spans_and_metrics(authority: Authority) -> None:
    context = authority.client_context()
    with OtlpReceiver(authority.issue().server_context()) as otlp:
        Receiver(f"{otlp.url}/v1/traces", {}, context).post(MESSAGE)
        assert [span.name for span in otlp.spans()] == ["cache.get"]
        answer = BoundedSession(context).post(f"{otlp.url}/v1/traces", data=MESSAGE)
        assert answer.status_code == 200
        assert len(otlp.bodies) == 2


def test_a_receiver_that_is_not_believed_is_told_with_what_to_do(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").client_context()
    with OtlpReceiver(authority.issue().server_context()) as otlp:
        with pytest.raises(NotTakenError, match=r"an authority that tls\.ca does not have"):
            Receiver(f"{otlp.url}/v1/traces", {}, other).post(MESSAGE)
        with pytest.raises(requests.exceptions.SSLError):
            BoundedSession(other).post(f"{otlp.url}/v1/traces", data=MESSAGE)
        assert otlp.bodies == []
