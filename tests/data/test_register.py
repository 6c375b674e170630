"""Data from outside: by a name that was registered, and by `package.module:function`."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit import data
from kdtoolkit.recipes import born_again
from tests.data import own_data

OWN_DATA = Path(own_data.__file__)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr("kdtoolkit.data.catalog._registered", {})
    data.register("spots", own_data.spots)
    data.register("ramp", own_data.Ramp)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    shutil.copy(OWN_DATA, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_data", None)


def test_arrays():
    info = data.describe("spots")
    assert (info.name, info.kind, info.image_shape) == ("spots", "arrays", (8, 8, 1))
    assert (info.labels, info.test_split) == (("0", "1", "2", "3"), "test")
    assert (info.train_size, info.validation_size, info.test_size) == (60, None, 20)
    loaded = data.load("spots", validation_fraction=0.2, train_examples=40)
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [40, 12, 20]
    assert loaded.train.augmentation == data.Augmentation(pad=0, flip=False)
    for split in (loaded.train, loaded.validation, loaded.test):
        # The place of the brightest pixel of an image, as its quarter.
        rows, columns = np.divmod(split.images.reshape(len(split), -1).argmax(1), 8)
        np.testing.assert_array_equal(rows // 4 * 2 + columns // 4, split.labels)


def test_a_source_of_ones_own():
    info = data.describe("ramp")
    assert (info.kind, info.image_shape, info.labels) == ("ramp", (3, 5, 1), ("dark", "bright"))
    loaded = data.load("ramp", validation_fraction=0)
    assert (len(loaded.train), len(loaded.test)) == (40, 10)
    np.testing.assert_array_equal(loaded.test.images[:, 0, 0, 0], 100 * (loaded.test.labels + 1))
    assert data.load("ramp", image_size=4).test.images.shape == (10, 4, 4, 1)


def test_arrays_are_scaled():
    # A quarter of one colour each: so they are when every two by two pixels are one.
    loaded = data.load("spots", image_size=2)
    assert loaded.info.image_shape == (2, 2, 1)
    np.testing.assert_array_equal(loaded.test.images.reshape(20, -1).argmax(1), loaded.test.labels)


def test_registered_again():
    data.register("spots", own_data.spots)
    with pytest.raises(ValueError, match="Near matches: spots"):
        data.describe("psots")


@pytest.mark.parametrize("name", ["spots", "digits", "cifar10", "./mine", "mine:1", "m.npz", ""])
def test_name_of_other_data(name):
    with pytest.raises(ValueError, match="`name` must be one that no other data set has"):
        data.register(name, lambda: None)


def test_what_is_no_source():
    with pytest.raises(ValueError, match="`make` must be a function"):
        data.register("mine", own_data.spots())
    data.register("mine", lambda: np.zeros(3))
    with pytest.raises(ValueError, match=r"returns a Source\..*name='mine'.*ndarray"):
        data.describe("mine")


def test_what_is_described_badly():
    class Unknown(own_data.Ramp):
        def describe(self, name, image_size=None):
            return data.DatasetInfo(name, "unknown")

    data.register("unknown", Unknown)
    assert data.describe("unknown").classes is None
    with pytest.raises(ValueError, match="'unknown' must have an image shape"):
        data.load("unknown")


def test_labels_outside_the_classes():
    class Wrong(own_data.Ramp):
        def describe(self, name, image_size=None):
            return data.DatasetInfo(name, "wrong", (3, 5, 1), None, 1, 40, None, 10)

    data.register("wrong", Wrong)
    with pytest.raises(ValueError, match=r"labels from 0 to 0\. Received: 1 at index 1"):
        data.load("wrong")


def test_by_module(folder):
    info = data.describe("own_data:spots")
    assert (info.name, info.classes) == ("own_data:spots", 4)
    assert len(data.load("own_data:Ramp").test) == 10


@pytest.mark.parametrize(
    "name", ["nowhere:spots", "own_data:sopts", "own_data:np.zeros", ":", "a:"]
)
def test_what_cannot_be_imported(folder, capsys, name):
    assert born_again.RECIPE.main([f"--dataset={name}"]) == 2
    error = capsys.readouterr().err
    assert "package.module:function that can be imported" in error
    assert len(error.splitlines()) == 1


def test_help_says_that_it_is_imported(capsys):
    assert born_again.RECIPE.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "package.module:function, data of your own: the module is imported" in text


def test_class_names_that_no_file_holds(folder, capsys):
    """Found before anything is trained, in data of whatever source."""
    source = OWN_DATA.read_text().replace('("dark", "bright")', '("dark", "bri\\nght")')
    (folder / "own_data.py").write_text(source)
    assert born_again.RECIPE.main(["--dataset=own_data:Ramp"]) == 2
    error = capsys.readouterr().err
    assert r"`class_names` must be names of one line of UTF-8 text. Received: 'bri\nght'" in error
    assert len(error.splitlines()) == 1


def test_a_recipe(folder, capsys):
    arguments = ["--dataset=own_data:spots", "--generations=0", "--top_k=3", "--epochs=1"]
    arguments += ["--export=none", "--batch_size=32"]
    assert born_again.RECIPE.main(arguments) == 0, capsys.readouterr().err
    assert "54 images to train on, 6 to validate on" in capsys.readouterr().err
    assert (folder / "saved_models" / "born_again-own_data:spots-resnet8-0").is_dir()
