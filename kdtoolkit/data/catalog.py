"""What is known of a data set before TensorFlow is imported: enough to check a command line."""

import dataclasses
import importlib.util
import numbers
import os
import pathlib
import re

from kdtoolkit import files
from kdtoolkit._checks import near
from kdtoolkit._types import PathLike
from kdtoolkit.data import archive, folder
from kdtoolkit.data.augmentation import Augmentation
from kdtoolkit.data.photographs import PhotographAugmentation

TEST_FRACTION = 0.2
"""Share of a data set without a test split that is held out as one."""

_DIGITS = 1797

# Known ahead of their download: image shape, classes, training images, test images.
_TFDS_FACTS = {
    "cifar10": ((32, 32, 3), 10, 50_000, 10_000),
    "cifar100": ((32, 32, 3), 100, 50_000, 10_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000, 10_000),
    "imagenet2012": ((None, None, 3), 1000, 1_281_167, 50_000),
    "mnist": ((28, 28, 1), 10, 60_000, 10_000),
}
# The split that serves as the test set where it is not "test": ImageNet's has no labels.
_TFDS_TEST_SPLITS = {"imagenet2012": "validation"}
_TFDS_PHOTOGRAPHS = ("imagenet2012",)
# Characters: mirrored, they are other classes.
_TFDS_CHARACTERS = ("emnist", "kmnist", "mnist", "mnist_corrupted", "svhn_cropped")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set; None is what only loading can tell.

    Attributes:
        name: as it was asked for.
        kind: "digits", "tfds", "folder", "archive" or "arrays".
        image_shape: `(height, width, channels)` of the images as they are loaded.
        class_names: one a class, in the order of the labels.
        classes: number of classes.
        train_size: images in the training split, before validation images are cut from it. Of a
            folder, these three sizes count files; `load` leaves out what cannot be read.
        validation_size: images in the validation split; None where it is cut from the training
            split.
        test_size: images in the test split.
        path: folder or file that holds the data.
        validation_split: name of the stored split that validates, or None.
        test_split: name of the stored split that serves as the test set; None where there is
            none, and `TEST_FRACTION` of the images is held out, stratified by class.
        augmentation: what suits these images.
        unreadable: paths of a folder's image files without a readable header.
    """

    name: str
    kind: str
    image_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    classes: int | None = None
    train_size: int | None = None
    validation_size: int | None = None
    test_size: int | None = None
    path: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    augmentation: Augmentation | PhotographAugmentation = dataclasses.field(
        default_factory=Augmentation
    )
    unreadable: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names; numbers where the data set has none."""
        return self.class_names or tuple(map(str, range(self.classes or 0)))


def describe(
    name: str, data_dir: PathLike | None = None, image_size: int | tuple[int, int] | None = None
) -> DatasetInfo:
    """Looks a data set up, without reading its images and without TensorFlow.

    Args:
        name: one of

            - `"digits"`: scikit-learn's 1,797 digits, 8x8x1. They have no official test split:
              a fifth, stratified by class and the same in every run, is the test set.
            - a TensorFlow Datasets name, `NAME` or `NAME/CONFIG`, with features `image` and
              `label`. The test set is the split `test`, else `validation` (for `imagenet2012`
              always: its `test` has no labels), else a fifth of `train`.
            - a folder, `PATH/train/CLASS/*.png` and `PATH/test/CLASS/*.png` (or `valid/`, `val/`,
              `validation/`), or `PATH/CLASS/*.png`, of which a fifth is the test set. A class'
              images may lie in `CLASS/images/`. Write `./NAME` for a folder that has a data set's
              name. CINIC-10 and Tiny-ImageNet are read as they are downloaded; of the latter,
              `val/` with its `val_annotations.txt` is the test set, for `test/` has no labels.
            - a file `PATH.npz` of uint8 images `(n, height, width)` or `(n, height, width,
              channels)` and integer labels, `x_train`, `y_train`, `x_test` and `y_test`, or
              `images` and `labels`, of which a fifth is the test set.

            Where there are both a test split and a validation split, the latter validates and
            nothing is cut from the training split.
        data_dir: where TensorFlow Datasets keeps its data; None for its default,
            `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        image_size: images are scaled to cover this size, an int or `(height, width)`, and cut
            to it about the centre; None keeps their own.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: an unknown name, a folder or file that is not as above, or images of several
            sizes and no `image_size`.
    """
    size = _check_image_size(image_size)
    if name == "digits":
        return _describe_digits(size)
    if name.endswith(".npz"):
        return _describe_archive(name, size)
    root = default_data_dir(data_dir)
    path = _prepared(name, root)
    known = path is not None or name.partition("/")[0] in _tfds_names()
    if os.path.isdir(name) and (os.sep in name or not known):
        return _describe_folder(name, size)
    if data_dir is not None and not root.is_dir():
        raise ValueError(f"Argument `data_dir` must be a folder. Received: {str(data_dir)!r}")
    if path is not None:
        return describe_prepared(name, path, size)
    if known:
        return _describe_unprepared(name, size)
    hint = near(name, {"digits", *_tfds_names()}, " ")
    raise ValueError(
        f"Unknown data set {name!r}: neither 'digits' nor an existing folder nor a .npz file nor a "
        f"name that TensorFlow Datasets knows or has prepared in {str(root)!r}.{hint}"
    )


def default_data_dir(data_dir=None):
    """`data_dir`, or where TensorFlow Datasets keeps its data if that is None."""
    fallback = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return pathlib.Path(fallback if data_dir is None else data_dir).expanduser()


def held_out(count):
    """How many of `count` images are held out where there is no test split."""
    return round(TEST_FRACTION * count)


def _check_image_size(image_size):
    if image_size is None:
        return None
    size = (image_size,) * 2 if isinstance(image_size, numbers.Integral) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(s, numbers.Integral) and s > 0 for s in size):
        raise ValueError(
            f"Argument `image_size` must be a positive int or (height, width). "
            f"Received: {image_size!r}"
        )
    return int(size[0]), int(size[1])


def _image_shape(name, stored, size):
    if size is None and None in stored:
        raise ValueError(
            f"Argument `image_size` is needed: the images of {name!r} have different sizes."
        )
    return (*(size or stored[:2]), stored[2])


def _describe_digits(size):
    test_size = held_out(_DIGITS)
    return DatasetInfo(
        name="digits",
        kind="digits",
        image_shape=_image_shape("digits", (8, 8, 1), size),
        class_names=tuple("0123456789"),
        classes=10,
        train_size=_DIGITS - test_size,
        test_size=test_size,
        augmentation=Augmentation(pad=1, flip=False),
    )


def _describe_folder(name, size):
    found = folder.scan(name)
    paths = [p for files in (found.train, found.validation, found.test) if files for p in files[0]]
    stored, unreadable = folder.image_shape(paths)
    train_size, test_size = _sizes(len(found.train.paths), found.test and len(found.test.paths))
    return DatasetInfo(
        name=name,
        kind="folder",
        image_shape=_image_shape(name, stored, size),
        class_names=found.class_names,
        classes=len(found.class_names),
        train_size=train_size,
        validation_size=found.validation and len(found.validation.paths),
        test_size=test_size,
        path=name,
        validation_split=found.validation_name,
        test_split=found.test_name,
        unreadable=unreadable,
    )


def _describe_archive(name, size):
    found = archive.scan(name)
    train_size, test_size = _sizes(found.train_size, found.test_size)
    return DatasetInfo(
        name=name,
        kind="archive",
        image_shape=_image_shape(name, found.image_shape, size),
        classes=found.classes,
        train_size=train_size,
        test_size=test_size,
        path=name,
        test_split="test" if found.test_size else None,
    )


def _sizes(stored_train_size, test_size):
    """Training and test images, the latter held out where none are stored."""
    if test_size is not None:
        return stored_train_size, test_size
    return stored_train_size - held_out(stored_train_size), held_out(stored_train_size)


def _tfds_names():
    # Importing tensorflow_datasets to ask it for its names would import TensorFlow.
    package = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent
    return {path.stem for path in (package / "url_checksums").glob("*.txt")} | {
        path.name for path in (package / "datasets").iterdir() if path.is_dir()
    }


def _describe_unprepared(name, size):
    stored, classes, train_size, test_size = _TFDS_FACTS.get(name, (None,) * 4)
    return DatasetInfo(
        name=name,
        kind="tfds",
        image_shape=stored and _image_shape(name, stored, size),
        classes=classes,
        train_size=train_size,
        test_size=test_size,
        test_split=_TFDS_TEST_SPLITS.get(name, "test") if classes else None,
        augmentation=_tfds_augmentation(name),
    )


def describe_prepared(name, path, image_size=None):
    """Reads what TensorFlow Datasets wrote of a data set when it prepared it.

    Args:
        name: as it was asked for.
        path: folder of the prepared version, a `pathlib.Path`.
        image_size: as in `describe`.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: no such features or splits, or images of several sizes and no `image_size`.
    """
    size = _check_image_size(image_size)
    features = files.read_json(path / "features.json")
    features = features.get("featuresDict", {}).get("features", {})
    image = features.get("image", {}).get("image", {})
    label = features.get("label", {}).get("classLabel", {})
    if "shape" not in image or image.get("dtype") != "uint8" or not label:
        raise ValueError(
            f"Data set {name!r} must have a feature 'image' of bytes and a feature 'label' of "
            f"classes. Its features: {', '.join(sorted(features))}"
        )
    # An unknown dimension is stored as -1.
    stored = tuple(int(d) if int(d) > 0 else None for d in image["shape"]["dimensions"])
    names = path / "label.labels.txt"

    splits = files.read_json(path / "dataset_info.json")["splits"]
    sizes = {split["name"]: sum(map(int, split["shardLengths"])) for split in splits}
    if "train" not in sizes:
        raise ValueError(f"Data set {name!r} has no split 'train'. Its splits: {sorted(sizes)}")
    choices = (_TFDS_TEST_SPLITS.get(name.partition("/")[0], "test"), "validation")
    test_split = next((choice for choice in choices if choice in sizes), None)
    validation_split = "validation" if test_split == "test" and "validation" in sizes else None
    train_size, test_size = _sizes(sizes["train"], sizes.get(test_split))
    return DatasetInfo(
        name=name,
        kind="tfds",
        image_shape=_image_shape(name, stored, size),
        class_names=tuple(names.read_text().splitlines()) if names.is_file() else None,
        classes=int(label["numClasses"]),
        train_size=train_size,
        validation_size=sizes.get(validation_split),
        test_size=test_size,
        path=str(path),
        validation_split=validation_split,
        test_split=test_split,
        augmentation=_tfds_augmentation(name),
    )


def _tfds_augmentation(name):
    name = name.partition("/")[0]
    if name in _TFDS_PHOTOGRAPHS:
        return PhotographAugmentation()
    return Augmentation(flip=name not in _TFDS_CHARACTERS)


def _prepared(name, root):
    """The folder of the newest version of a prepared data set, or None."""
    try:
        found = list((root / name).glob("*/dataset_info.json"))
    except (OSError, ValueError):  # too long for a name, or not one
        return None
    versions = [p.parent for p in found if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    return max(versions, key=lambda v: tuple(map(int, v.name.split("."))), default=None)
