"""The command line of `cachesvc top`, and its two ways of showing."""

import argparse
import asyncio
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cachesvc.cli import main
from cachesvc.commands.top import command
from cachesvc.commands.top.audit import AuditLog
from cachesvc.commands.top.between import Look
from cachesvc.commands.top.deployment import Deployment
from cachesvc.commands.top.exposition import Exposition
from cachesvc.commands.top.scrape import Ready, Scrape, Silence
from cachesvc.model.units import Duration


def options(*words: str, environ: Mapping[str, str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser, environ or {})
    return parser.parse_args(words)


def test_environment_and_options_say_whom_to_look_at() -> None:
    found = options(
        "--interval", "250ms", environ={"CACHESVC_TOPOLOGY": "a.yaml", "CACHESVC_DEBUG_TOKEN": "sesame"}
    )
    assert (found.topology, found.debug_token, found.interval, found.urls) == (
        Path("a.yaml"),
        "sesame",
        Duration(250_000),
        [],
    )
    assert options("--url", "http://a", "--url", "http://b").urls == ["http://a", "http://b"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--interval", "0s"), "--interval: must be above 0"),
        (("--topology", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--topology", "{bare}"), "name no instances: say --url"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_the_reason(
    words: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.yaml"
    text = Path("config/two-regions.yaml").read_text()
    bare.write_text(
        "\n".join(
            line
            for line in text.splitlines()
            if "instances:" not in line and "http://127.0.0.1:8" not in line
        )
    )
    assert main(["top", "--once", *(word.replace("{bare}", str(bare)) for word in words)], {}) == 2
    assert why in capsys.readouterr().err


class ScriptedAsker:
    """Answers one look after another, and is interrupted after the last."""

    def __init__(self, *looks: Look) -> None:
        self._looks = list(looks)

    async def all(self, _: Mapping[str, str]) -> Look:
        if not self._looks:
            raise asyncio.CancelledError
        return self._looks.pop(0)


def scrape(at: float, loads: int) -> Look:
    return {"eu-a": Scrape(at, Exposition.parse(f"cachesvc_requests_total {loads}\n"), Ready(True))}


def watching(*looks: Look) -> command.Watch:
    return command.Watch(ScriptedAsker(*looks), Deployment({"eu-a": "http://a"}, {}), AuditLog({}), 0.0)


async def test_once_is_two_looks_and_the_exit_code_is_the_verdict() -> None:
    out = StringIO()
    assert await command.once(watching(scrape(1, 10), scrape(2, 50)), Console(file=out, width=130)) == 0
    assert out.getvalue().startswith("healthy")
    assert "40" in out.getvalue()
    assert (
        await command.once(watching(scrape(1, 10), {"eu-a": Silence("refused")}), Console(file=StringIO()))
        == 1
    )


async def test_for_ever_shows_each_look_against_the_one_before() -> None:
    out = StringIO()
    console = Console(file=out, width=130, height=40, force_terminal=True)
    watch = watching(scrape(1, 10), scrape(2, 31), {"eu-a": Silence("refused")}, scrape(4, 50))
    with pytest.raises(asyncio.CancelledError):
        await command.for_ever(watch, console)
    text = out.getvalue()
    assert text.index("21") < text.index("eu-a does not answer (refused)") < text.rindex("healthy")


async def test_changes_are_left_out_where_no_queue_can_be_asked() -> None:
    queues = {"hidden": "redis://***@127.0.0.1:1/0", "down": "redis://127.0.0.1:1/0", "odd": "somewhere"}
    async with AuditLog(queues) as audit:
        assert await audit.last() == []
