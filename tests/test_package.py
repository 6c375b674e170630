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
def source(tmp_path_factory):
    """The tracked files of a checkout."""
    directory = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return directory


def built(source, directory):
    """The wheel that is made of a directory: its name, its files, its metadata."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={directory}", str(source)], check=True)
    (path,) = directory.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("METADATA"))
        return path, names, archive.read(metadata).decode().replace("_", "-")


def modules(*rooms):
    """Files of the package, or of some of its rooms, as a wheel names them."""
    paths = [path for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in paths if path.suffix != ".pyc"}


def test_version_is_one():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changes, re.M)[1] == kdtoolkit.__version__


def test_wheel_has_all_that_the_source_has(source, tmp_path):
    path, names, text = built(source, tmp_path)
    assert path.name.startswith(f"kdtoolkit-{kdtoolkit.__version__}-py3-none-any")
    assert modules("kdtoolkit") <= names
    shared = f"kdtoolkit-{kdtoolkit.__version__}.data/data/share/kdtoolkit/recipes"
    flags = {f"{shared}/{path.name}" for path in (ROOT / "recipes").glob("*.flags")}
    assert flags and flags <= names
    others = ("tests/", "benchmarks/", "docs/", "examples/", "packaging/")
    assert not any(name.startswith(others) for name in names)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for line in setup["options"]["install_requires"].split("\n"):
        if line and not line.startswith("#"):
            name = re.split("[<>=]", line)[0].replace("_", "-")
            assert f"Requires-Dist: {name}" in text


def test_distribution_for_devices_runs_by_itself(source, tmp_path):
    """It needs four packages, has all that it imports, and imports nothing of training."""
    path, names, text = built(source / "packaging" / "edge", tmp_path)
    assert path.name.startswith(f"kdtoolkit_edge-{kdtoolkit.__version__}-py3-none-any")
    needed = re.findall(r"^Requires-Dist: ([a-z-]+)", text, re.M)
    assert sorted(needed) == ["ai-edge-litert", "flatbuffers", "numpy", "pillow"]
    assert modules("kdtoolkit/edge") <= names
    assert not any(name.startswith("kdtoolkit/recipes/") for name in names)
    imported = ("__main__", "classifier", "demo", "description", "images", "metadata")
    script = (
        f"import sys; sys.path.insert(0, {str(path)!r})\n"
        f"from kdtoolkit.edge import {', '.join(imported)}\n"
        "assert all('whl' in m.__file__ for n, m in sys.modules.items() if n[:9] == 'kdtoolkit')\n"
        "heavy = {'tensorflow', 'keras', 'absl', 'rich', 'matplotlib', 'scipy', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_source_has_the_house_style():
    pytest.importorskip("ruff")
    ruff = [sys.executable, "-m", "ruff"]
    source = ["kdtoolkit", "tests", "benchmarks", "examples", "packaging", "docs/site.py"]
    for command in ([*ruff, "check", "."], [*ruff, "format", "--check", *source]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
