"""The generated modules of the sync flavour are what their twins say."""

import shutil
from pathlib import Path

import pytest

from clients.python import unasync


def test_the_generated_modules_are_up_to_date() -> None:
    assert unasync.main(["--check"]) == 0


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, with the settings of ruff."""
    copy = tmp_path / "src/cachesvc_client"
    shutil.copytree(unasync.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(unasync.PACKAGE.parents[3] / "pyproject.toml", tmp_path)
    monkeypatch.setattr(unasync, "PACKAGE", copy)
    return copy


def change(file: Path, said: str, instead: str) -> None:
    text = file.read_text()
    assert said in text
    file.write_text(text.replace(said, instead))


def test_a_change_of_a_twin_is_told_by_its_file_and_written(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(package / "aio/cached.py", "async def refresh(", "async def renew(")
    assert unasync.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith(
        "src/cachesvc_client/sync/cached.py differs from its twin in aio"
    )
    assert "def refresh(" in (package / "sync/cached.py").read_text(), "a check writes nothing"
    assert unasync.main([]) == 0
    assert "    def renew(" in (package / "sync/cached.py").read_text()
    assert unasync.main(["--check"]) == 0


def test_a_change_of_a_generated_module_is_told_as_well(package: Path) -> None:
    change(package / "sync/calls.py", "deadline, turn)", "deadline, None)")
    assert unasync.main(["--check"]) == 1


def test_a_wording_that_its_twin_does_not_have_any_more_is_a_mistake(package: Path) -> None:
    change(package / "aio/on_commit.py", "made by `Cache.on_commit`", "from `Cache.on_commit`")
    change(package / "aio/on_commit.py", "invalidations of one transaction", "changes of one transaction")
    with pytest.raises(ValueError, match=r"WORDING of on_commit: .* does not say .* any more"):
        unasync.main(["--check"])


@pytest.mark.parametrize("module", unasync.WORDING)
def test_a_generated_module_says_where_it_is_from_and_nothing_of_asyncio(module: str) -> None:
    text = (unasync.PACKAGE / "sync" / f"{module}.py").read_text()
    first, _, rest = text.partition("\n")
    assert f"aio/{module}.py" in first
    assert unasync.COMMAND in first
    assert [
        word for word in ("async", "await", "Awaitable", "aiohttp", "the loop", "aio only") if word in rest
    ] == []
