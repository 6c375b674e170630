"""A finished training is its own network with its own figures, every bit of both."""

import json
import shutil

import pytest

from kdtoolkit import files
from kdtoolkit.training import record
from tests.test_files import flips

FIGURES = {"test_accuracy": 0.875, "seconds": 12.5}


def finished(directory, content=b"a network" * 100, **training):
    directory.mkdir()
    (directory / "network.keras").write_bytes(content)
    record.write(directory, FIGURES, training)
    return directory


def test_figures_come_back(tmp_path):
    assert record.read(finished(tmp_path / "a", name="a"), {"name": "a"}) == FIGURES


@pytest.mark.parametrize(("name", "step"), [("network.keras", 37), ("results.json", 3)])
def test_flipped_bits_are_noticed(tmp_path, name, step):
    directory = finished(tmp_path / "a", name="a")
    for content in flips((directory / name).read_bytes(), step):
        (directory / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            record.read(directory, {"name": "a"})


@pytest.mark.parametrize("name", ["network.keras", "results.json", "*"])
def test_files_of_another_training_are_noticed(tmp_path, name):
    """Even both: they fit each other, but are not those of this training."""
    directory = finished(tmp_path / "a", name="generation_1", seed=0)
    other = finished(tmp_path / "b", b"another", name="generation_0", seed=0)
    for path in other.glob(name):
        shutil.copy(path, directory)
    with pytest.raises(ValueError, match=r"results\.json"):
        record.read(directory, {"name": "generation_1", "seed": 0})


def test_files_of_an_older_version_are_refused(tmp_path):
    directory = finished(tmp_path / "a", name="a")
    (directory / "results.json").write_text(json.dumps(FIGURES))
    with pytest.raises(ValueError, match="no checksum, or an older version wrote"):
        record.read(directory, {"name": "a"})
    files.write_record(directory / "results.json", FIGURES)  # such as a run's own
    with pytest.raises(ValueError, match="another training: name None, not 'a'"):
        record.read(directory, {"name": "a"})


def test_training_that_is_no_object(tmp_path):
    directory = finished(tmp_path / "a", name="a")
    files.write_record(directory / "results.json", {**FIGURES, "training": ["a"]})
    with pytest.raises(ValueError, match="does not say which training"):
        record.read(directory, {"name": "a"})
