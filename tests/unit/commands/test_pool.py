"""`cachesvc pool`: of the document, one server changes and the version."""

from pathlib import Path

import pytest
import yaml

from cachesvc.cli import main
from cachesvc.commands.pool.edit import PoolEdit, edited
from cachesvc.model.errors import ConfigError

BLOCK = """\
# who may change this: the cache team
version: 7  # raised by the pipeline
regions:
  eu:
    queue: "redis://queue.eu:6379/0"
    pool:
      # the first rack
      m1: {address: "m1:11211"}  # old
      m2:
        address: m2:11211
        weight: 2
    # no gutter yet

  us: {queue: "redis://queue.us:6379/0", pool: {u1: {address: "u1:11211"}}}
cells:
  eu-1: {region: eu, url: "redis://eu-1:6379/0"}
namespaces: {}
"""
FLOW = yaml.safe_dump(yaml.safe_load(BLOCK), default_flow_style=True, width=10_000)
JSON = FLOW.replace("'", '"')


@pytest.mark.parametrize("text", [BLOCK, FLOW], ids=["block", "flow"])
@pytest.mark.parametrize(
    ("region", "field", "name", "server"),
    [
        ("eu", "pool", "m3", {"address": "m3:11211", "weight": 1.5, "zone": "a"}),
        ("us", "pool", "u2", {"address": "u2:11211"}),
        ("eu", "gutter", "g1", {"address": "g1:11211"}),
        ("us", "gutter", "g1", {"address": "g1:11211"}),
        ("eu", "pool", "m1", {"address": "new:11211"}),
        ("eu", "pool", "m2", {"address": "new:11211", "zone": "b"}),
        ("eu", "pool", "m1", None),
        ("eu", "pool", "m2", None),
        ("us", "pool", "u1", None),
    ],
)
def test_what_is_meant_is_said_and_the_rest_stays(
    text: str, region: str, field: str, name: str, server: dict[str, object] | None
) -> None:
    wanted = yaml.safe_load(text)
    servers = wanted["regions"][region].setdefault(field, {})
    if server is None:
        del servers[name]
    else:
        servers[name] = servers.get(name, {}) | server
    wanted["version"] = 8
    new = edited(text, PoolEdit(region, field, name, server), "topology.yaml")
    assert yaml.safe_load(new) == wanted
    if text is BLOCK:
        assert "# who may change this: the cache team\nversion: 8  # raised by the pipeline\n" in new
        assert "# the first rack" in new
        assert "    # no gutter yet\n\n  us: " in new
        kept = [line for line in text.splitlines() if line in new.splitlines()]
        assert len(kept) >= len(text.splitlines()) - 4


def test_what_cannot_be_changed_in_its_place_is_left_alone() -> None:
    text = BLOCK.replace('m1: {address: "m1:11211"}', 'm1: &m {address: "m1:11211"}').replace(
        'pool: {u1: {address: "u1:11211"}}', "pool: {u1: *m}"
    )
    with pytest.raises(ConfigError, match="by hand"):
        edited(text, PoolEdit("us", "pool", "u1", {"address": "new:11211"}), "topology.yaml")


def test_a_document_without_a_version_gets_one() -> None:
    text = BLOCK.replace("version: 7  # raised by the pipeline\n", "")
    new = edited(text, PoolEdit("us", "pool", "u2", {"address": "u2:11211"}), "topology.yaml")
    assert yaml.safe_load(new)["version"] == 2


class Command:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "topology.yaml"
        self.path.write_text(BLOCK)
        self.path.chmod(0o640)
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """The exit code and the output."""
        code = main(["pool", *arguments, "--topology", str(self.path)], {})
        told = self._capsys.readouterr()
        return code, told.out + told.err


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def test_it_is_shown_and_written(command: Command) -> None:
    link = command.path.with_name("link.yaml")
    link.symlink_to(command.path)
    command.path, path = link, command.path
    code, told = command("add", "m3", "m3:11211", "--region", "eu", "--yes")
    assert code == 0
    assert "version 7 → 8" in told
    assert "regions.eu.pool.m3" in told
    assert "Keys of eu that change their memcached server: 2" in told
    assert yaml.safe_load(path.read_text())["regions"]["eu"]["pool"]["m3"] == {"address": "m3:11211"}
    assert (path.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert sorted(path.parent.iterdir()) == sorted([path, link])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "m3", "m3:11211"), "--region: is missing: one of eu, us"),
        (("add", "m3", "--region", "eu"), "ADDRESS: is missing"),
        (("add", "m1", "x:1", "--region", "eu"), "m1 is in the pool already"),
        (("add", "m3", "m1:11211", "--region", "eu"), "is the same as $.regions.eu.pool.m1"),
        (("add", "m3", "m3:11211", "--region", "eu", "--weight", "0"), "0.0 is no weight"),
        (("replace", "m4", "x:1", "--region", "eu"), "no 'm4' in the pool (there is m1, m2)"),
        (("remove", "m1", "x:1", "--region", "eu"), "ADDRESS: is not taken"),
        (("remove", "u1", "--region", "asia"), "no region 'asia'"),
        (("remove", "m1", "--region", "eu", "--gutter"), "no 'm1' in the gutter"),
    ],
)
def test_a_wrong_argument_is_told_and_nothing_is_written(
    command: Command, arguments: tuple[str, ...], said: str
) -> None:
    code, told = command(*arguments, "--yes")
    assert (code, command.path.read_text()) == (2, BLOCK)
    assert said in told
    assert list(command.path.parent.iterdir()) == [command.path]


def test_without_a_terminal_nothing_is_written(command: Command) -> None:
    code, told = command("remove", "m1", "--region", "eu")
    assert (code, command.path.read_text()) == (1, BLOCK)
    assert "write --yes" in told
