import json
import pathlib
import subprocess
import sys

import pytest

from kdtoolkit.data import Augmentation, PhotographAugmentation, describe, load


def test_digits():
    info = describe("digits")
    assert (info.kind, info.image_shape, info.classes) == ("digits", (8, 8, 1), 10)
    assert info.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert (info.train_size, info.test_size) == (1438, 359)  # 1,797 = 1,438 + a fifth
    assert info.augmentation == Augmentation(pad=1, flip=False)
    assert describe("digits", image_size=(16, 12)).image_shape == (16, 12, 1)


def test_prepared_data_set_newest_version(tfds_dir):
    info = describe("grey", tfds_dir)
    assert info.path == str(tfds_dir / "grey" / "1.10.0")  # newer than 1.9, unlike as a string
    assert (info.kind, info.image_shape, info.classes) == ("tfds", (6, 6, 1), 3)
    assert info.class_names == ("ant", "bee", "cat")
    assert (info.train_size, info.test_size, info.test_split) == (60, 12, "test")
    assert info.augmentation == Augmentation(pad=4, flip=True)


def test_another_label(tfds_dir, tmp_path):
    info = describe("grey", tfds_dir, label="coarse_label")
    assert (info.label, info.classes) == ("coarse_label", 2)
    assert info.class_names == ("insect", "mammal")
    assert describe("grey", tfds_dir, label="label") == describe("grey", tfds_dir)
    assert describe("cifar100", tmp_path, label="coarse_label").classes == 20
    assert describe("food101", tmp_path, label="coarse_label").classes is None  # not known yet


def test_prepared_configuration(tfds_dir, tmp_path):
    (tmp_path / "grey").mkdir()
    (tmp_path / "grey" / "small").symlink_to(tfds_dir / "grey")
    path = tmp_path / "grey" / "small" / "1.10.0"
    assert describe("grey/small", tmp_path).path == str(path)
    with pytest.raises(ValueError, match=r"`name` must be digits, .* Received: name='grey'"):
        describe("grey", tmp_path)


def test_prepared_data_set_in_the_default_folder(tfds_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_dir))
    assert describe("grey").path == str(tfds_dir / "grey" / "1.10.0")


def test_a_fifth_of_train_where_there_is_no_test_split(tfds_dir):
    info = describe("mixed", tfds_dir, image_size=4)
    assert (info.train_size, info.test_size, info.test_split) == (12, 3, None)
    assert info.image_shape == (4, 4, 3)


def test_unprepared_data_sets(tmp_path):
    info = describe("cifar100", tmp_path)
    assert (info.image_shape, info.classes) == ((32, 32, 3), 100)
    assert (info.train_size, info.test_size, info.path) == (50_000, 10_000, None)
    assert not describe("mnist", tmp_path).augmentation.flip
    info = describe("imagenet2012", tmp_path, image_size=224)
    assert (info.image_shape, info.test_split) == ((224, 224, 3), "validation")
    assert info.augmentation == PhotographAugmentation()
    assert describe("food101", tmp_path).image_shape is None


def test_imagenet_is_tested_on_its_validation_split(tfds_dir, tmp_path):
    path = tmp_path / "imagenet2012" / "5.1.0"
    path.mkdir(parents=True)
    for name in ("features.json", "dataset_info.json"):
        text = (tfds_dir / "grey" / "1.10.0" / name).read_text()
        path.joinpath(name).write_text(text.replace('"name": "test"', '"name": "validation"'))
    values = json.loads((path / "dataset_info.json").read_text())
    unlabelled = {"name": "test", "shardLengths": ["7"], "numBytes": "1"}
    values["splits"].append(unlabelled)
    (path / "dataset_info.json").write_text(json.dumps(values))
    info = describe("imagenet2012", tmp_path)
    assert (info.test_split, info.test_size) == ("validation", 12)


def test_folder_with_splits(write_images):
    path = write_images(
        {f"{split}/{name}/{i}.png": (5, 7) for split, count in (("train", 3), ("val", 2))
         for name in ("cow", "ass") for i in range(count)}
    )  # fmt: skip
    info = describe(path)
    assert (info.kind, info.image_shape, info.class_names) == ("folder", (5, 7, 3), ("ass", "cow"))
    assert (info.train_size, info.test_size, info.test_split) == (6, 4, "val")


def test_folder_of_classes(write_images):
    path = write_images({f"{name}/{i}.png": (5, 7) for name in "ab" for i in range(10)})
    info = describe(path)
    assert (info.train_size, info.test_size, info.test_split) == (16, 4, None)


@pytest.mark.parametrize("inner", ["", "images/"])
def test_a_class_called_train(write_images, inner):
    path = write_images(
        {f"{name}/{inner}{i}.png": (5, 7) for name in ("bus", "car", "train") for i in range(5)}
    )
    info = describe(path)
    assert (info.class_names, info.test_split) == (("bus", "car", "train"), None)
    assert (info.train_size, info.test_size) == (12, 3)


def test_a_folder_does_not_hide_a_known_name(write_images, monkeypatch):
    path = write_images({"cifar10/a/0.png": (5, 7), "cifar10/b/0.png": (5, 7)})
    monkeypatch.chdir(path)
    assert describe("cifar10").kind == "tfds"
    assert describe("./cifar10").kind == "folder"
    info = describe(pathlib.Path("cifar10"))  # a path is no name
    assert (info.kind, info.name) == ("folder", "./cifar10")
    assert load(pathlib.Path("cifar10").resolve(), validation_fraction=0).info.kind == "folder"


def test_folder_errors(write_images, tmp_path):
    path = write_images({"a/0.png": (5, 7), "b/0.png": (5, 8), "a/1.png": (5, 7)})
    with pytest.raises(ValueError, match="`image_size` must be given"):
        describe(path)
    assert describe(path, image_size=6).image_shape == (6, 6, 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"Class 'empty' .* has no images .*Found: notes\.txt$"):
        describe(path)


def test_splits_with_different_classes(write_images):
    path = write_images({"train/a/0.png": (5, 5), "train/b/0.png": (5, 5), "test/a/0.png": (5, 5)})
    with pytest.raises(ValueError, match=r"same classes in train/ and test/.* only: b"):
        describe(path)


@pytest.mark.parametrize("others", [[], ["test"], ["test", "car"], ["val", "car"]])
def test_images_of_a_split_that_lie_side_by_side(write_images, others):
    path = write_images({f"{name}/{i}.png": (5, 7) for name in ("train", *others) for i in (0, 1)})
    with pytest.raises(
        ValueError, match=r"train' must have one sub-folder .* Found: 0.png, 1.png$"
    ):
        describe(path)


def test_train_without_test(write_images):
    path = write_images({"train/a/0.png": (5, 5), "test/images/0.png": (5, 5)})
    with pytest.raises(ValueError, match=r"must also have test/, .* Found: test/, train/$"):
        describe(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cifra10"], "`name` must be .* Received: name='cifra10'. Near matches: cifar10"),
        (["./nowhere"], "`name` must be .* an existing folder.* Received: name='./nowhere'"),
        (["cifar10", "/no/such/folder"], "`data_dir` must be a folder.*'/no/such/folder'"),
        (["imagenet2012"], "`image_size` must be given.*'imagenet2012'"),
        (["digits", None, 0], "`image_size` must be .* Received: image_size=0"),
        (["digits", None, (8, 8, 1)], "`image_size` must be"),
        (["digits", None, 32.0], "`image_size` must be .* Received: image_size=32.0"),
        (["digits", None, True], "`image_size` must be .* Received: image_size=True"),
        (["cifar100", None, None, "coarse"], "`label` must be one of label, coarse_label. Receiv"),
        (["mnist", None, None, "coarse_label"], "`label` must be one of label. Received"),
        (["digits", None, None, "label"], "`label` must be left out for 'digits', which has one"),
    ],
)
def test_errors_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        describe(*arguments)
    assert "\n" not in str(error.value)


def test_prepared_data_set_that_is_not_for_classification(tfds_dir, tmp_path):
    path = tmp_path / "texts" / "1.0.0"
    path.mkdir(parents=True)
    values = json.loads((tfds_dir / "grey" / "1.0.0" / "features.json").read_text())
    del values["featuresDict"]["features"]["label"]
    (path / "features.json").write_text(json.dumps(values))
    (path / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'texts' must have .*: coarse_label, image"):
        describe("texts", tmp_path)


def test_prepared_data_set_without_such_a_label(tfds_dir):
    accepted = "`label` must be one of coarse_label, label. Received: label='%s'"
    for wrong in ("coarse", "image"):  # nothing, and a feature that is none of classes
        with pytest.raises(ValueError, match=accepted % wrong):
            describe("grey", tfds_dir, label=wrong)


def test_no_heavy_import(tfds_dir):
    heavy = {"tensorflow", "keras", "tensorflow_datasets", "sklearn"}
    code = (
        "import sys; from kdtoolkit.data import describe, Preprocessing, epoch_plan; "
        f"describe('grey', {str(tfds_dir)!r}); describe('cifar10'); describe('digits'); "
        "describe('tests.data.own_data:spots'); "
        f"print({heavy} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout.strip() == "set()", output.stderr
