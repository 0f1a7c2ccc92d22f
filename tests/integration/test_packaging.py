"""Both distributions are built and installed as a package index would hand them out. Nothing is downloaded."""

import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from loadtests.fleet_topology import free_ports
from tests.integration.test_serve import call, read_banner, served, wait_ready

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("cachesvc", "clients/python", "tests", "pyproject.toml", "README.md", "LICENSE")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")

pytestmark = pytest.mark.slow


class Distributions(NamedTuple):
    sources: list[Path]
    wheels: list[Path]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Source distributions of the service and the SDK, and the wheels that are built from them."""
    copy, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, copy / name, ignore=NOT_COPIED)
        else:
            shutil.copy(REPOSITORY / name, copy)
    for project in (copy, copy / "clients" / "python"):
        done([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(project)])
    return Distributions(sorted(built.glob("*.tar.gz")), sorted(built.glob("*.whl")))


@pytest.fixture(scope="module")
def installed(distributions: Distributions) -> Iterator[Path]:
    """The `bin` of an environment with both wheels. Their dependencies are seen in this environment."""
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as path:
        venv = Path(path)
        done([sys.executable, "-m", "venv", "--without-pip", str(venv)])
        python = venv / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        done([*pip, "--no-deps", "--no-index", *map(str, distributions.wheels)])
        (site_packages,) = venv.glob("lib/python*/site-packages")
        # A directory named by a .pth stands last in sys.path, and the .pth files in it are not read: the repository, which
        # this environment knows by such a file, is not importable.
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        yield venv / "bin"


def done(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def package_files(parent: Path, package: str) -> set[str]:
    """Modules, scripts and the type marker of a package, by their path from its parent."""
    patterns = ("*.py", "*.lua", "py.typed")
    found = [path for pattern in patterns for path in (parent / package).rglob(pattern)]
    return {path.relative_to(parent).as_posix() for path in found}


def test_wheels_hold_the_files_of_their_package_and_nothing_else(distributions: Distributions) -> None:
    service, sdk = (
        {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        for wheel in distributions.wheels
    )
    assert "cachesvc/tiers/l3/lua/fill.lua" in service
    assert service == package_files(REPOSITORY, "cachesvc")
    assert sdk == package_files(REPOSITORY / "clients" / "python" / "src", "cachesvc_client")


def test_source_distributions_hold_the_same_and_no_tests(distributions: Distributions) -> None:
    for source, wheel in zip(distributions.sources, distributions.wheels, strict=True):
        with tarfile.open(source) as archive:
            names = [name.partition("/")[2].removeprefix("src/") for name in archive.getnames()]
        needed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert needed - {*names} == set()
        assert [name for name in names if name.startswith("tests")] == []


def test_a_wheel_serves_on_embedded_servers(installed: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with TemporaryDirectory(prefix="csvc-", dir="/tmp") as root:
        process = served(Path(root), port, ("env", "--unset=PYTHONPATH", str(installed / "cachesvc")))
        try:
            read_banner(process)
            wait_ready(f"http://127.0.0.1:{port}")
            at = f"http://127.0.0.1:{port}/v1/pages/hello"
            assert call(at, "PUT", b"hello, world")[0] == 204
            assert call(at) == (200, b"hello, world")
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize("package", ["cachesvc", "cachesvc_client"])
def test_what_is_imported_is_the_wheel_and_it_is_typed(installed: Path, package: str) -> None:
    program = f"import {package}, pathlib; print(pathlib.Path({package}.__file__).parent)"
    folder = Path(done([str(installed / "python"), "-I", "-c", program]).strip())
    assert folder.is_relative_to(installed.parent.resolve())
    assert (folder / "py.typed").exists()
