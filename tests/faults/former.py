"""The former version of the service, as instances beside those of this one.

    python -m tests.faults.former DIRECTORY serve --topology …

runs the version that is installed in a directory. It is a wheel that is built from this
repository's history: of the newest tag, or, as long as nothing is released, of `COMMIT`.
"""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

COMMIT = "c3e658cc6d21e238d7bb370e96f24330ee6a4607"
"""The state that stands for the last release. A release is a tag, which takes its place."""
MODULE = "tests.faults.former"
REPOSITORY = Path(__file__).parents[2]
_RUN = """
import os, sys
import cachesvc
from cachesvc.cli import main
from cachesvc.config.environment import NOT_SETTINGS, settings
from cachesvc.config.service import Service
assert cachesvc.__file__.startswith(sys.argv[1]), cachesvc.__file__
known = {*NOT_SETTINGS, *(name for name, _ in settings(Service))}
environ = {name: value for name, value in os.environ.items() if name in known or name[:9] != "CACHESVC_"}
sys.exit(main(sys.argv[2:], environ))
"""
"""Runs the service with the settings that it knows: a new one would stop it, as it stops any start."""


def revision() -> str:
    """Returns the newest tag, or `COMMIT`; empty if this clone has neither."""
    tags = _git("tag", "--list", "v*", "--sort=-v:refname").decode().split()
    found = tags[0] if tags else COMMIT
    return found if _git("rev-parse", "--quiet", "--verify", f"{found}^{{commit}}") else ""


def install(found: str, target: Path) -> None:
    """Builds the wheel of a revision, and unpacks it into the directory."""
    with TemporaryDirectory() as folder:
        sources, built = Path(folder, "sources"), Path(folder, "built")
        with tarfile.open(fileobj=io.BytesIO(_git("archive", found, "--format=tar"))) as archive:
            archive.extractall(sources, filter="data")
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built)]
        subprocess.run([*command, str(sources)], check=True, capture_output=True)
        (wheel,) = built.glob("*.whl")
        zipfile.ZipFile(wheel).extractall(target)  # noqa: S202  it was built here


def _git(*words: str) -> bytes:
    """Returns what git prints; empty if it fails, or if there is no repository."""
    return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, check=False).stdout


def main(target: str, *words: str) -> None:
    """Becomes the service of the directory. `-P`: the working directory's own is not looked at."""
    environ = {**os.environ, "PYTHONPATH": target}
    os.execve(sys.executable, [sys.executable, "-P", "-c", _RUN, target, *words], environ)  # noqa: S606  on purpose


if __name__ == "__main__":
    main(*sys.argv[1:])
