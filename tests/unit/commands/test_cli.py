"""The commands' exit codes and messages: a person's mistake is said in a line, without a traceback."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from cachesvc.app import instance as app
from cachesvc.app.topology_store import Started
from cachesvc.cli import main
from cachesvc.commands.command_line import COMMANDS
from cachesvc.config.service import Service

TWO_REGIONS = "config/two-regions.yaml"


@pytest.fixture(autouse=True)
def _signals_and_logging_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("cachesvc.telemetry.logs.logs.set_up", lambda *_: None)


def serving(
    monkeypatch: pytest.MonkeyPatch, *, failure: BaseException | None = None
) -> list[tuple[Service, Started]]:
    """An app that is ready on port 7 and stops at once, or fails; and what it was told to serve."""
    served: list[tuple[Service, Started]] = []

    async def serve(service: Service, started: Started, *, ready: Callable[[int], None], **_: object) -> None:
        served.append((service, started))
        if failure is not None:
            raise failure
        ready(7)

    monkeypatch.setattr(app, "serve", serve)
    return served


def test_a_topology_is_served_and_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serving(monkeypatch)
    environ = {"CACHESVC_REGION": "us", "CACHESVC_INSTANCE": "us-a"}
    assert main(["serve", "--topology", TWO_REGIONS], environ) == 0
    assert served[0][0].region == "us"
    said = capsys.readouterr().out
    assert "serves http://127.0.0.1:7 (region us, instance us-a)" in said
    assert "us-m1 127.0.0.1:21201" in said
    assert "curl -i http://127.0.0.1:7/v1/pages/hello" in said


def test_the_documents_may_be_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "service.yaml").write_text("region: eu")
    served = serving(monkeypatch)
    assert (
        main(["serve"], {"CACHESVC_TOPOLOGY": TWO_REGIONS, "CACHESVC_CONFIG": str(tmp_path / "service.yaml")})
        == 0
    )
    assert served[0][0].region == "eu"
    assert len(served[0][1].topology.cells) == 4


def test_service_links_are_said_and_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    served = serving(monkeypatch)
    links = {"CACHESVC_SERVER_PORT": "tcp://10.0.0.1:80", "CACHESVC_SERVER_SERVICE_HOST": "10.0.0.1"}
    environ = {"CACHESVC_REGION": "eu", **links}
    said = (
        "CACHESVC_SERVER_PORT, CACHESVC_SERVER_SERVICE_HOST: Kubernetes' service links, passed over"
        " (enableServiceLinks: false in the pod's spec leaves them out)"
    )
    assert main(["serve", "--topology", TWO_REGIONS], environ) == 0
    assert served[0][0].server.port == 8080
    assert caplog.messages == [said]
    assert main(["check-config", "--topology", TWO_REGIONS], environ) == 0
    assert f"environment: {said}\n" in capsys.readouterr().out


def test_a_port_in_use_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serving(monkeypatch, failure=OSError(errno.EADDRINUSE, "no"))
    assert main(["serve", "--topology", TWO_REGIONS], {"CACHESVC_REGION": "eu"}) == 1
    assert capsys.readouterr().err.startswith("cachesvc: 127.0.0.1:8080 is in use: ")


def test_ctrl_c_before_the_service_handles_it_is_a_normal_end(monkeypatch: pytest.MonkeyPatch) -> None:
    serving(monkeypatch, failure=KeyboardInterrupt())
    assert main(["serve", "--topology", TWO_REGIONS], {"CACHESVC_REGION": "eu"}) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region: us-w st", "service.yaml: $.region: 'us-w st' is no name"),
        ("region: euu", "$.region: no region 'euu' in the topology (did you mean 'eu'?)"),
        ("sever: 1", "service.yaml: $.sever: unknown field (did you mean 'server'?)"),
    ],
)
def test_a_mistake_in_a_document_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "service.yaml").write_text(text)
    assert (
        main(["check-config", "--config", str(tmp_path / "service.yaml"), "--topology", TWO_REGIONS], {}) == 2
    )
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_production_does_not_run_on_embedded_servers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"], {"CACHESVC_ENV": "production"}) == 2
    assert "production does not run on embedded servers" in capsys.readouterr().err


def test_check_config_says_what_the_documents_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--topology", TWO_REGIONS], {"CACHESVC_REGION": "eu"}) == 0
    assert "topology: ok, version 1, 2 regions, 4 cells, 4 namespaces" in capsys.readouterr().out


def test_a_pool_elsewhere_needs_a_key_that_is_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "topology.yaml").write_text(
        "version: 1\n"
        "regions: {eu: {queue: 'redis://10.0.0.1/0', pool: {m1: {address: '10.0.0.2:11211'}}}}\n"
        "cells: {c1: {region: eu, url: 'redis://10.0.0.3/0'}}\n"
        "namespaces: {}\n"
    )
    words, here = ["check-config", "--topology", str(tmp_path / "topology.yaml")], {"CACHESVC_REGION": "eu"}
    assert main(words, here) == 2
    assert "$.l2.seal_keys: is empty, but memcached m1 (10.0.0.2:11211) is not" in capsys.readouterr().err
    for key, code in (("00112233445566778899aabbccddeeff", 0), ("00112233445566778899aabbccddee", 2)):
        assert main(words, {**here, "CACHESVC_L2_SEAL_KEYS": key}) == code
        said = capsys.readouterr()
        assert key not in said.out + said.err
    assert main(words, {**here, "CACHESVC_L2_SEAL": "false"}) == 0


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sever"], {})


def test_each_command_has_its_own_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["publish", "pages", "--config", "service.yaml"], {})
    assert "unrecognized arguments: --config" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"], {})
    assert COMMANDS[command].purpose in capsys.readouterr().out
