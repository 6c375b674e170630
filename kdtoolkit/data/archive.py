"""NumPy's `.npz` files: `x_train`, `y_train`, `x_test`, `y_test`, or `images` and `labels`."""

import contextlib
import math
import os
import zipfile
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from kdtoolkit import bounded
from kdtoolkit.data import source
from kdtoolkit.data.wording import shown, some

_LAYOUTS = (
    {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
    {"train": ("images", "labels")},
)


class ArchiveSource(source.Source):
    """Arrays in a file.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        self.path = path

    def describe(self, name, image_size=None):
        found = scan(self.path)
        train_size, test_size = source.sizes(found.train_size, found.test_size)
        return source.DatasetInfo(
            name=name,
            kind="archive",
            image_shape=source.image_shape(name, found.image_shape, image_size),
            classes=found.classes,
            train_size=train_size,
            test_size=test_size,
            path=self.path,
            test_split="test" if found.test_size else None,
        )

    def read(self, info, choose, strict=False):
        from kdtoolkit.data.scaling import cover_all

        train, test = (
            split and (cover_all(split[0], info.image_shape[:2]), split[1])
            for split in read(self.path)
        )
        return source.Stored.of(info, choose, train, test=test)


class Facts(NamedTuple):
    """What an archive holds.

    Attributes:
        image_shape: `(height, width, channels)`.
        classes: number of classes.
        train_size: training images.
        test_size: test images; None where there are none of their own.
    """

    image_shape: tuple[int, int, int]
    classes: int
    train_size: int
    test_size: int | None


def scan(path):
    """Looks an archive up, without reading its images; labels are read once their number is known.

    Raises:
        ValueError: not such an archive, arrays of another type or shape, images without labels,
            or labels that do not number the classes of both splits from 0.
    """
    with _open(path) as archive:
        layout = _layout(path, archive)
        shapes = {split: _image_shapes(path, archive, keys[0]) for split, keys in layout.items()}
        for split, (images, key) in layout.items():
            count = _label_count(path, archive, key)
            if shapes[split][0] != count:
                raise ValueError(
                    f"Archive {path!r} must have a label for each image. Received: "
                    f"{shapes[split][0]} images in {images!r}, {count} labels in {key!r}"
                )
        labels = {split: _labels(path, archive, keys[1]) for split, keys in layout.items()}
    image_shapes = {shape[1:] for shape in shapes.values()}
    if len(image_shapes) > 1:
        raise ValueError(
            f"Archive {path!r} must have training and test images of the same shape. "
            f"Received: {' and '.join(str(shape[1:]) for shape in shapes.values())}"
        )
    classes = np.unique(labels["train"])
    for split, (_, key) in layout.items():
        outside = np.flatnonzero((labels[split] < 0) | (labels[split] >= len(classes)))
        if outside.size:
            raise ValueError(
                f"Archive {path!r} must number its {len(classes)} classes from 0, with images of "
                f"each. Received: label {labels[split][outside[0]]} at index {outside[0]} of "
                f"{key!r}, outside 0 to {len(classes) - 1}"
            )
    if "test" in labels and (other := np.setxor1d(classes, labels["test"])).size:
        raise ValueError(
            f"Archive {path!r} must have the same classes in 'y_train' and 'y_test'. "
            f"In one of them only: {some(other)}"
        )
    test_size = len(labels["test"]) if "test" in labels else None
    return Facts(*image_shapes, len(classes), len(labels["train"]), test_size)


def read(path):
    """Reads an archive that `scan` accepts.

    Returns:
        `(images, labels)` of the training split and of the test split, the latter None where there
        is none. Images uint8 `(n, height, width, channels)`, labels int32 `(n,)`.

    Raises:
        ValueError: the file is damaged.
    """
    with _open(path) as archive:
        layout = _layout(path, archive)

        def read_split(images, labels):
            pixels = _array(path, archive, images)
            pixels = pixels[..., None] if pixels.ndim == 3 else pixels
            return pixels, _labels(path, archive, labels).astype(np.int32)

        test = read_split(*layout["test"]) if "test" in layout else None
        return read_split(*layout["train"]), test


@contextlib.contextmanager
def _open(path):
    with _naming(f"archive {path!r}"):
        bounded.check_regular(path)
        archive = zipfile.ZipFile(path)
    with archive:
        with _naming(f"archive {path!r}"):
            bounded.check_expansion(archive)
        yield archive


@contextlib.contextmanager
def _naming(what):
    """Makes one line of what zipfile, zlib and NumPy raise for damaged bytes: almost anything."""
    try:
        yield
    except Exception as error:
        cause = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        cause = shown(cause) or type(error).__name__
        raise ValueError(f"Cannot read {what}: {cause}") from error


def _layout(path, archive):
    keys = {os.path.splitext(name)[0] for name in archive.namelist()}
    for layout in _LAYOUTS:
        if keys.issuperset(key for pair in layout.values() for key in pair):
            return layout
    expected = " or ".join(", ".join(k for p in lay.values() for k in p) for lay in _LAYOUTS)
    raise ValueError(
        f"Archive {path!r} must have the arrays {expected}. It has: {some(keys) or 'none'}"
    )


def _image_shapes(path, archive, key):
    """`(n, height, width, channels)` from the header of an array of images."""
    shape, dtype = _header(path, archive, key)
    images = source.stored_shape(shape, dtype)
    if images is None:
        raise ValueError(
            f"Array {key!r} of archive {path!r} must be {source.IMAGES_ACCEPTED}. "
            f"Received: {dtype} {shape}"
        )
    return images


def _label_count(path, archive, key):
    """The number of labels from the header of their array."""
    shape, dtype = _header(path, archive, key)
    column = len(shape) == 2 and shape[1] == 1  # as Keras' own of CIFAR
    if not np.issubdtype(dtype, np.integer) or not (len(shape) == 1 or column):
        raise ValueError(
            f"Array {key!r} of archive {path!r} must be integers of shape (n,) or (n, 1). "
            f"Received: {dtype} {shape}"
        )
    return shape[0]


def _labels(path, archive, key):
    return _array(path, archive, key).ravel()


def _header(path, archive, key):
    """Shape and dtype that an array is said to have, and has bytes for."""
    with _array_file(path, archive, key) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        size = archive.getinfo(f"{key}.npy").file_size - file.tell()
        if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"{size:,} bytes are not {dtype} {shape}")
    return shape, dtype


def _array(path, archive, key):
    with _array_file(path, archive, key) as file:
        return npy.read_array(file, allow_pickle=False)


@contextlib.contextmanager
def _array_file(path, archive, key):
    with _naming(f"array {key!r} of archive {path!r}"), archive.open(f"{key}.npy") as file:
        yield file
