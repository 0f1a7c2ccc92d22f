"""`cachesvc token`: what it prints is what the document needs, and the token stands nowhere else."""

import hashlib
from pathlib import Path

import pytest
import yaml

from cachesvc.cli import main
from cachesvc.config.callers import Callers
from cachesvc.config.document import read_struct

TOPOLOGY = """
version: 1
regions: {eu: {queue: "redis://127.0.0.1:1/0"}}
cells: {c1: {region: eu, url: "redis://127.0.0.1:1/1"}}
namespaces: {}
"""
NEW = ("token", "new", "--name", "checkout", "--scope", "read:pages", "--scope", "invalidate:pages")


def made(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    """The token, and the lines for the document."""
    assert main([*NEW, *more], {}) == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert token not in said.err
    return token, "callers:\n  named:\n" + said.err.partition("\n\n")[2]


def test_a_new_token_has_256_bits_and_its_lines_fit_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    (token, lines), (other, _) = made(capsys), made(capsys)
    assert token != other
    assert len(token.removeprefix("cachesvc_")) == 43
    callers = read_struct(yaml.safe_load(lines)["callers"], Callers)
    (caller,) = callers.named.values()
    assert caller.scopes == ("read:pages", "invalidate:pages")
    assert [one.sha256 for one in caller.tokens] == [hashlib.sha256(token.encode()).hexdigest()]


@pytest.mark.parametrize(
    ("until", "code", "said"),
    [
        (
            "2999-01-01T00:00:00Z",
            0,
            "checkout, until 2999-01-01T00:00:00+00:00: read:pages, invalidate:pages\n",
        ),
        ("2001-01-01T00:00:00+01:00", 1, "has come to its end"),
        ("", 0, "checkout, without an end: read:pages, invalidate:pages\n"),
    ],
)
def test_a_token_is_checked(
    until: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, lines = made(capsys, *(["--until", until] if until else []))
    (tmp_path / "topology.yaml").write_text(TOPOLOGY + lines)
    (tmp_path / "token").write_text(token + "\n")
    words = ["token", "check", "--topology", str(tmp_path / "topology.yaml")]
    assert main([*words, "--token-file", str(tmp_path / "token")], {}) == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    (tmp_path / "other").write_text("another")
    assert main(words, {"CACHESVC_TOKEN_FILE": str(tmp_path / "other")}) == 1
    assert capsys.readouterr().err == "cachesvc: no caller has this token\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("token", "new", "--scope", "read:a"), "--name: is not given"),
        (("token", "new", "--name", "a"), "--scope: is not given"),
        (("token", "new", "--name", "a b", "--scope", "read:a"), "is no name of a caller"),
        (("token", "new", "--name", "a", "--scope", "read"), "is no scope"),
        (
            ("token", "new", "--name", "a", "--scope", "read:a", "--until", "soon"),
            "--until: 'soon' is no moment",
        ),
        (("token", "new", "--name", "a", "--scope", "read:a", "--until", "2026-12-01"), "is no moment"),
        (("token", "check"), "--token-file: is not given"),
    ],
)
def test_a_mistake_is_said_and_no_token_is_made(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words, {}) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


@pytest.mark.parametrize("held", ["", "a b", "a\nb", "ü", "\x1b[2J", "x" * 10_000])
def test_a_file_without_one_token_is_refused_and_not_repeated(
    held: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(held)
    assert main(["token", "check", "--token-file", str(tmp_path / "token")], {}) == 2
    said = capsys.readouterr().err
    assert "does not hold one token" in said
    assert len(said) < 300
