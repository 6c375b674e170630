"""TensorFlow Datasets: what is known of its data sets, prepared or not."""

import importlib.util
import os
import pathlib
import re

from kdtoolkit import files
from kdtoolkit._checks import OneOf, check
from kdtoolkit.data import source
from kdtoolkit.data.augmentation import Augmentation
from kdtoolkit.data.photographs import PhotographAugmentation

_LABEL = "label"  # the field of a data set's own label
# Known ahead of their download: image shape, classes by label, training images, test images.
_FACTS = {
    "cifar10": ((32, 32, 3), {_LABEL: 10}, 50_000, 10_000),
    "cifar100": ((32, 32, 3), {_LABEL: 100, "coarse_label": 20}, 50_000, 10_000),
    "fashion_mnist": ((28, 28, 1), {_LABEL: 10}, 60_000, 10_000),
    "imagenet2012": ((None, None, 3), {_LABEL: 1000}, 1_281_167, 50_000),
    "mnist": ((28, 28, 1), {_LABEL: 10}, 60_000, 10_000),
}
# The split that serves as the test set where it is not "test": ImageNet's has no labels.
_TEST_SPLITS = {"imagenet2012": "validation"}
_PHOTOGRAPHS = ("imagenet2012",)
# Characters: mirrored, they are other classes.
_CHARACTERS = ("emnist", "kmnist", "mnist", "mnist_corrupted", "svhn_cropped")


class TfdsSource(source.Source):
    """A data set with a feature `image` and one or several of classes.

    Args:
        root: where TensorFlow Datasets keeps its data, a `pathlib.Path`.
        path: folder of the prepared version; None where there is none yet.
        label: name of the feature of classes that is learned.
    """

    streams = True

    def __init__(self, root, path=None, label=_LABEL):
        self.root, self.path, self.label = root, path, label

    def describe(self, name, image_size=None):
        if self.path is None:
            return _describe_unprepared(name, image_size, self.label)
        return _describe_prepared(name, self.path, image_size, self.label)

    def prepare(self, name, image_size=None):
        path = self.path or _download(name, self.root)
        return _describe_prepared(name, path, image_size, self.label)

    def read(self, info, choose, strict=False):
        splits = self.streamed(info)
        return source.Stored.of(info, choose, *(split and split.load() for split in splits))

    def streamed(self, info, strict=False):
        from kdtoolkit.data.records import Records

        names = ("train", info.validation_split, info.test_split)
        return source.Streams(*(name and Records(info, name) for name in names))


def default_data_dir(data_dir=None):
    """`data_dir`, or where TensorFlow Datasets keeps its data if that is None."""
    fallback = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(fallback if data_dir is None else data_dir).expanduser()


def prepared(name, root):
    """The folder of the newest version of a prepared data set, or None."""
    try:
        found = list((root / name).glob("*/dataset_info.json"))
    except (OSError, ValueError):  # too long for a name, or not one
        return None
    versions = [p.parent for p in found if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    return max(versions, key=lambda v: tuple(map(int, v.name.split("."))), default=None)


def names():
    """The names that TensorFlow Datasets knows, prepared or not."""
    # Importing tensorflow_datasets to ask it for its names would import TensorFlow.
    package = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    return {path.stem for path in (package / "url_checksums").glob("*.txt")} | {
        path.name for path in (package / "datasets").iterdir() if path.is_dir()
    }


def _download(name, root):
    """Lets TensorFlow Datasets download and prepare a data set; the folder of what it prepared."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=root)
        builder.download_and_prepare()
    except Exception as error:  # Whatever stopped it, from a missing network to a full disk.
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"Data set {name!r} is not prepared in {str(root)!r}, and TensorFlow Datasets could "
            f"not prepare it: {cause}"
        ) from error
    return pathlib.Path(builder.data_dir)


def _describe_unprepared(name, size, label):
    stored, by_label, train_size, test_size = _FACTS.get(name, (None,) * 4)
    if by_label is not None:
        check("label", label, OneOf(tuple(by_label)))
    classes = by_label and by_label[label]
    return source.DatasetInfo(
        name=name,
        kind="tfds",
        image_shape=stored and source.image_shape(name, stored, size),
        label=label,
        classes=classes,
        train_size=train_size,
        test_size=test_size,
        test_split=_TEST_SPLITS.get(name, "test") if classes else None,
        augmentation=_augmentation(name),
    )


def _describe_prepared(name, path, size, label):
    """Reads what TensorFlow Datasets wrote of a data set when it prepared it."""
    features = files.read_json(path / "features.json")
    features = features.get("featuresDict", {}).get("features", {})
    image = features.get("image", {}).get("image", {})
    by_label = {
        key: int(feature["classLabel"]["numClasses"])
        for key, feature in features.items()
        if "classLabel" in feature
    }
    has_label = by_label and (label in by_label or label != _LABEL)
    if "shape" not in image or image.get("dtype") != "uint8" or not has_label:
        raise ValueError(
            f"Data set {name!r} must have a feature 'image' of bytes and a feature 'label' of "
            f"classes, or another one that is asked for. Its features: "
            f"{', '.join(sorted(features))}"
        )
    check("label", label, OneOf(tuple(by_label)))
    # An unknown dimension is stored as -1.
    stored = tuple(int(d) if int(d) > 0 else None for d in image["shape"]["dimensions"])
    names = path / f"{label}.labels.txt"

    splits = files.read_json(path / "dataset_info.json")["splits"]
    sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    if "train" not in sizes:
        raise ValueError(f"Data set {name!r} has no split 'train'. Its splits: {sorted(sizes)}")
    choices = (_TEST_SPLITS.get(name.partition("/")[0], "test"), "validation")
    test_split = next((choice for choice in choices if choice in sizes), None)
    validation_split = "validation" if test_split == "test" and "validation" in sizes else None
    train_size, test_size = source.sizes(sizes["train"], sizes.get(test_split))
    return source.DatasetInfo(
        name=name,
        kind="tfds",
        image_shape=source.image_shape(name, stored, size),
        label=label,
        class_names=tuple(names.read_text().splitlines()) if names.is_file() else None,
        classes=by_label[label],
        train_size=train_size,
        validation_size=sizes.get(validation_split),
        test_size=test_size,
        path=str(path),
        validation_split=validation_split,
        test_split=test_split,
        augmentation=_augmentation(name),
    )


def _augmentation(name):
    name = name.partition("/")[0]
    if name in _PHOTOGRAPHS:
        return PhotographAugmentation()
    return Augmentation(flip=name not in _CHARACTERS)
