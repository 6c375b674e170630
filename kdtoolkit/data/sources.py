"""Reads stored images into uint8 arrays, or into a `tf.data` pipeline."""

import contextlib
import copy
import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from kdtoolkit.data import archive, catalog, folder
from kdtoolkit.data.catalog import DatasetInfo
from kdtoolkit.data.wording import some

_BATCH = 256
_MOST_SCALED = 2**25  # pixels


class Stored(NamedTuple):
    """`(images, labels)` of what is used of a data set.

    Images uint8 `(n, *image_shape)`, labels int32 `(n,)`.

    Attributes:
        train, validation, test: of the parts of the stored training split.
        size: number of images of the stored training split that can be read, as far as is known.
        stored_validation, stored_test: of the stored splits of that name, None where there is none.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    size: int
    stored_validation: tuple[np.ndarray, np.ndarray] | None = None
    stored_test: tuple[np.ndarray, np.ndarray] | None = None


def read(info, cut, strict=False):
    """Reads what is used of a data set that fits in memory.

    Args:
        info: a `DatasetInfo` of data that are there (a `path`, or digits).
        cut: function of the labels of the stored training split; returns the indices of the images
            that train, validate and test. Of a folder no others are decoded.
        strict: whether an image file that cannot be read is an error; otherwise such files are
            left out, and one warning says how many they are and names a few.

    Returns:
        `Stored`.

    Raises:
        ValueError: an image cannot be decoded, or a label is not one of `info.classes`.
    """
    if info.kind == "folder":
        return _read_folder(info, cut, strict)
    read_splits = {"digits": _read_digits, "archive": _read_archive, "tfds": _read_tfds}
    (images, labels), *others = splits = read_splits[info.kind](info)
    for split in filter(None, splits):
        _check(info, *split)
    parts = [(images[part], labels[part]) for part in cut(labels)]
    return Stored(*parts, len(labels), *others)


def _check(info, images, labels):
    if images.shape[1:] != info.image_shape:
        raise ValueError(
            f"Data set {info.name!r} must have images of shape {info.image_shape}. "
            f"Received: {images.shape[1:]}"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= info.classes))
    if outside.size:
        raise ValueError(
            f"Data set {info.name!r} must have labels from 0 to {info.classes - 1}. "
            f"Received: {labels[outside[0]]} at index {outside[0]}"
        )


def prepare(name, data_dir, image_size):
    """Lets TensorFlow Datasets download and prepare a data set.

    Returns:
        Its `DatasetInfo`.

    Raises:
        ValueError: TensorFlow Datasets could not.
    """
    import tensorflow_datasets as tfds

    root = catalog.default_data_dir(data_dir)
    try:
        builder = tfds.builder(name, data_dir=root)
        builder.download_and_prepare()
    except Exception as error:  # Whatever stopped it, from a missing network to a full disk.
        cause = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"Data set {name!r} is not prepared in {str(root)!r}, and TensorFlow Datasets could "
            f"not prepare it: {cause}"
        ) from error
    return catalog.describe_prepared(name, pathlib.Path(builder.data_dir), image_size)


def cover(images, size):
    """Scales images to cover a size, keeping their proportions, and cuts them about the centre.

    Args:
        images: uint8 `(..., height, width, channels)`.
        size: `(height, width)`.

    Returns:
        uint8 `(..., *size, channels)`; scaled bilinearly and antialiased, then rounded.
    """
    if tuple(images.shape[-3:-1]) == tuple(size):
        return images
    # An accelerator would round some pixels otherwise: the stored images would depend on it.
    with tf.device("CPU:0"):
        stored = tf.cast(tf.shape(images)[-3:-1], tf.float64)
        scale = tf.reduce_max(tf.constant(size, tf.float64) / stored)
        scaled = tf.maximum(tf.cast(tf.round(stored * scale), tf.int32), size)
        images = tf.image.resize(images, scaled, antialias=True)
        top, left = tf.unstack((scaled - size) // 2)
        images = images[..., top : top + size[0], left : left + size[1], :]
        return _to_uint8(images)


def _to_uint8(images):
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


class DamagedDataError(ValueError):
    """Stored data that cannot be read; the message is one line that names the data set."""


@contextlib.contextmanager
def reading(info: DatasetInfo) -> Iterator[None]:
    """Context in which whatever TensorFlow raises for damaged files is a `DamagedDataError`.

    For loops over a `StreamingSplit`, `fit` among them: its files are read while it is used.

    Args:
        info: the data set's `DatasetInfo`.
    """
    try:
        yield
    except tf.errors.OpError as error:
        # A network's own errors are of the same types, but do not come out of an iterator.
        if "IteratorGetNext" not in error.message:
            raise
        # In a graph the cause stands below a stack trace and above the names of operations.
        cause = error.message.partition("\n\t [[")[0].strip().rpartition("\n")[2]
        cause = re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", cause)
        raise DamagedDataError(
            f"Cannot read data set {info.name!r} in {info.path!r}: {cause}"
        ) from error


class Records:
    """The examples of one split as TensorFlow Datasets stored them, or some of them.

    Attributes:
        files: paths of the split's TFRecord files.
        starts: position, among these examples, of the first one in each file or after, int64.
    """

    def __init__(self, info, split):
        """
        Args:
            info: the `DatasetInfo` of a prepared data set.
            split: name of a stored split.

        Raises:
            ValueError: the files are not TFRecord files.
        """
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(info.path)
        file_format = builder.info.file_format.value
        if file_format != "tfrecord":
            raise ValueError(
                f"Data set {info.name!r} must be prepared as 'tfrecord'. Received: {file_format!r}"
            )
        stored = builder.info.splits[split]
        features = {key: builder.info.features[key] for key in ("image", "label")}
        self.files = [str(path) for path in stored.filepaths]
        self.starts = self._first_stored = np.cumsum([0, *stored.shard_lengths[:-1]])
        self._positions = np.arange(stored.num_examples)
        self._size = stored.num_examples
        self._info = info
        # Only what is used is parsed and decoded.
        self._features = tfds.features.FeaturesDict(features)
        self._skip_decoding = tfds.decode.SkipDecoding()

    def __len__(self):
        return self._size

    def subset(self, selected):
        """Some of the stored examples.

        Args:
            selected: their indices in the stored split, ascending.
        """
        subset = copy.copy(self)
        subset.starts = np.searchsorted(selected, self._first_stored)
        subset._positions = np.full(len(self._positions), -1)
        subset._positions[selected] = np.arange(len(selected))
        subset._size = len(selected)
        return subset

    def read(self, order=None, cycle_length=1):
        """Dataset of (position among these examples, serialised example).

        Args:
            order: file numbers, an integer tensor: the files are opened in this order. None for
                stored order.
            cycle_length: how many files are read in turns; 1 for one after another.
        """
        order = tf.range(len(self.files)) if order is None else order
        with tf.device("CPU:0"):
            positions = tf.constant(self._positions)
        files = tf.data.Dataset.from_tensor_slices(
            (tf.gather(self.files, order), tf.gather(self._first_stored, order))
        )
        records = files.interleave(
            lambda file, start: tf.data.TFRecordDataset(file).enumerate(start),
            cycle_length=cycle_length,
            block_length=16,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return records.map(lambda index, record: (positions[index], record)).filter(
            lambda position, record: position >= 0
        )

    def decode(self, record):
        """Serialised example -> (uint8 image of the data set's shape, int32 label)."""
        example = self._features.deserialize_example(record)
        height, width, _ = self._info.image_shape
        image = tf.ensure_shape(cover(example["image"], (height, width)), self._info.image_shape)
        return image, tf.cast(example["label"], tf.int32)

    def decode_crop(self, record, choose):
        """Likewise, but what is scaled to the data set's shape is a box of the stored image.

        Args:
            record: serialised example.
            choose: function of the stored height and width, integer tensors, that returns the box:
                top, left, height and width, int32 `(4,)`.
        """
        skip = {"image": self._skip_decoding}
        example = self._features.deserialize_example(record, decoders=skip)
        encoded, channels = example["image"], self._info.image_shape[-1]

        def crop_jpeg():  # without decoding all of it
            height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
            return tf.io.decode_and_crop_jpeg(encoded, choose(height, width), channels)

        def crop_any():
            image = tf.io.decode_image(encoded, channels, expand_animations=False)
            top, left, height, width = tf.unstack(choose(tf.shape(image)[0], tf.shape(image)[1]))
            return image[top : top + height, left : left + width]

        image = tf.cond(tf.io.is_jpeg(encoded), crop_jpeg, crop_any)
        image = tf.image.resize(image, self._info.image_shape[:2], antialias=True)
        image = tf.ensure_shape(_to_uint8(image), self._info.image_shape)
        return image, tf.cast(example["label"], tf.int32)

    def first_images(self, count):
        """Yields the first `count` images in stored order, uint8 `(b, height, width, channels)`."""
        return (images for _, images, _ in self._decoded(count))

    def load(self):
        """All examples: uint8 `(n, height, width, channels)`, int32 `(n,)`."""
        images = np.empty((len(self), *self._info.image_shape), np.uint8)
        labels = np.empty(len(self), np.int32)
        for positions, some_images, some_labels in self._decoded(len(self)):
            images[positions], labels[positions] = some_images, some_labels
        return images, labels

    def _decoded(self, count):
        examples = self.read().map(
            lambda position, record: (position, *self.decode(record)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        with reading(self._info):
            yield from examples.take(count).batch(_BATCH).as_numpy_iterator()


def _read_digits(info):
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The stored values are 0 to 16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train = np.array(cover(images, info.image_shape[:2])), digits.target.astype(np.int32)
    return train, None, None


def _read_archive(info):
    def finish(images, labels):
        if images.shape[1:] == info.image_shape:
            return images, labels
        covered = np.empty((len(images), *info.image_shape), np.uint8)
        for start in range(0, len(images), _BATCH):
            batch = slice(start, start + _BATCH)
            covered[batch] = cover(images[batch], info.image_shape[:2])
        return covered, labels

    train, test = archive.read(info.path)
    return finish(*train), None, test and finish(*test)


def _read_folder(info, cut, strict):
    found = folder.scan(info.path)
    broken = []

    def read_split(files, choose):
        parts, size, left_out = folder.read(
            files,
            found.class_names,
            info.image_shape,
            lambda image: _cover_file(image, info.image_shape[:2]),
            choose,
            info.unreadable,
            strict,
        )
        broken.extend(left_out)
        return parts, size

    parts, size = read_split(found.train, cut)
    others = [
        files and read_split(files, folder.everything)[0][0]
        for files in (found.validation, found.test)
    ]
    left_out = (
        (broken, "image files", "cannot be read"),
        (found.ignored, "files", "are no images by their names"),
    )
    for paths, what, why in left_out:
        if paths:
            warnings.warn(
                f"Left out {len(paths)} {what} of {info.path!r} that {why}: "
                f"{some(os.path.relpath(path, info.path) for path in paths)}",
                stacklevel=4,  # whoever called `load`
            )
    return Stored(*parts, size, *others)


def _cover_file(image, size):
    """As `cover`, but not for strips that would be scaled to more than memory holds."""
    stored = np.array(image.shape[:2])
    height, width = np.rint(stored * np.max(size / stored)).astype(int)
    if height * width > max(_MOST_SCALED, image.size):
        raise ValueError(f"scaled to cover {size} its pixels would be {height:,} x {width:,}")
    return cover(image, size)


def _read_tfds(info):
    splits = ("train", info.validation_split, info.test_split)
    return [split and Records(info, split).load() for split in splits]
