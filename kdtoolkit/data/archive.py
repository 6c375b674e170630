"""NumPy's `.npz` files: `x_train`, `y_train`, `x_test`, `y_test`, or `images` and `labels`.

Beside the first four may be `x_val` and `y_val`, or in the place of those for tests.
"""

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

_SPLITS = ("train", *source.VALIDATION_NAMES, "test")
_UNSPLIT = ("images", "labels")


class ArchiveSource(source.Source):
    """Arrays in a file.

    Args:
        path: of the file.
    """

    def __init__(self, path):
        self.path = path

    def describe(self, name, image_size=None):
        found = scan(self.path)
        sizes = found.sizes
        validation_split, test_split = source.roles(sizes)
        train_size, test_size = source.sizes(sizes["train"], sizes.get(test_split))
        return source.DatasetInfo(
            name=name,
            kind="archive",
            image_shape=source.image_shape(name, found.image_shape, image_size),
            classes=found.classes,
            train_size=train_size,
            validation_size=sizes.get(validation_split),
            test_size=test_size,
            path=self.path,
            validation_split=validation_split,
            test_split=test_split,
        )

    def read(self, info, choose, strict=False):
        from kdtoolkit.data.scaling import cover_all

        splits = {
            name: (cover_all(images, info.image_shape[:2]), labels)
            for name, (images, labels) in read(self.path).items()
        }
        names = ("train", info.validation_split, info.test_split)
        return source.Stored.of(info, choose, *map(splits.get, names))


class Facts(NamedTuple):
    """What an archive holds.

    Attributes:
        image_shape: `(height, width, channels)`.
        classes: number of classes.
        sizes: name of a split -> number of its images; `train` is always there.
    """

    image_shape: tuple[int, int, int]
    classes: int
    sizes: dict[str, int]


def scan(path):
    """Looks an archive up, without reading its images; labels are read once their number is known.

    Raises:
        ValueError: not such an archive, arrays of another type or shape, images without labels,
            or labels that do not number the classes of every split from 0.
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
            f"Archive {path!r} must have images of the same shape in all splits. "
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
        if (other := np.setxor1d(classes, labels[split])).size:
            raise ValueError(
                f"Archive {path!r} must have the same classes in {layout['train'][1]!r} and "
                f"{key!r}. In one of them only: {some(other)}"
            )
    return Facts(*image_shapes, len(classes), {split: len(y) for split, y in labels.items()})


def read(path):
    """Reads an archive that `scan` accepts.

    Returns:
        Name of a split -> `(images, labels)`. Images uint8 `(n, height, width, channels)`, labels
        int32 `(n,)`.

    Raises:
        ValueError: the file is damaged.
    """
    with _open(path) as archive:

        def read_split(images, labels):
            pixels = _array(path, archive, images)
            pixels = pixels[..., None] if pixels.ndim == 3 else pixels
            return pixels, _labels(path, archive, labels).astype(np.int32)

        return {split: read_split(*keys) for split, keys in _layout(path, archive).items()}


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
    """Name of a split -> names of its images and labels."""
    keys = {os.path.splitext(name)[0] for name in archive.namelist()}
    pairs = {split: (f"x_{split}", f"y_{split}") for split in _SPLITS}
    # One array of a pair is enough: what is called like a split is never left out in silence.
    layout = {split: pair for split, pair in pairs.items() if not keys.isdisjoint(pair)}
    used = {"train", *source.roles(layout)} - {None}
    if layout.keys() == used and len(used) > 1 and keys.issuperset(sum(layout.values(), ())):
        return layout
    if not layout and keys.issuperset(_UNSPLIT):
        return {"train": _UNSPLIT}
    raise ValueError(
        f"Archive {path!r} must have the arrays x_train, y_train, and x_test, y_test or x_val, "
        f"y_val or both, or images, labels alone. It has: {some(keys, most=8) or 'none'}"
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
