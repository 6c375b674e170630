"""What is built and released: the wheel's contents, its version, the style of the source."""

import configparser
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kdtoolkit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The distribution, built from the tracked files of a checkout."""
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "made"))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={made}", str(source)], check=True)
    (path,) = made.glob("*.whl")
    return path


def test_version_is_one():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.M)[1] == kdtoolkit.__version__


def test_wheel_has_all_that_the_source_has(wheel):
    assert wheel.name.startswith(f"kdtoolkit-{kdtoolkit.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("METADATA"))
        text = archive.read(metadata).decode().replace("_", "-")
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kdtoolkit").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert package <= names
    shared = f"kdtoolkit-{kdtoolkit.__version__}.data/data/share/kdtoolkit/recipes"
    flags = {f"{shared}/{path.name}" for path in (ROOT / "recipes").glob("*.flags")}
    assert flags and flags <= names
    assert not any(
        name.startswith(("tests/", "benchmarks/", "docs/", "examples/")) for name in names
    )
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for line in setup["options"]["install_requires"].split("\n"):
        if line and not line.startswith("#"):
            name = re.split("[<>=]", line)[0].replace("_", "-")
            assert f"Requires-Dist: {name}" in text


def test_source_has_the_house_style():
    pytest.importorskip("ruff")
    ruff = [sys.executable, "-m", "ruff"]
    source = ["kdtoolkit", "tests", "benchmarks", "examples", "docs/site.py"]
    for command in ([*ruff, "check", "."], [*ruff, "format", "--check", *source]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
