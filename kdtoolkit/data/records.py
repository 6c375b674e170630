"""What TensorFlow Datasets stored, as a `tf.data` pipeline or as arrays."""

import contextlib
import copy
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from kdtoolkit._machine import cores
from kdtoolkit.data.parallel import parallel_map, prefetched
from kdtoolkit.data.scaling import cover, to_uint8
from kdtoolkit.data.source import DatasetInfo

_BATCH = 256


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
        label: name of the feature that is the label.
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
        self.label = info.label or "label"
        features = {key: builder.info.features[key] for key in ("image", self.label)}
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
            num_parallel_calls=min(cores(), cycle_length),
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
        return image, tf.cast(example[self.label], tf.int32)

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
        image = tf.ensure_shape(to_uint8(image), self._info.image_shape)
        return image, tf.cast(example[self.label], tf.int32)

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
        examples = parallel_map(
            self.read(), lambda position, record: (position, *self.decode(record))
        )
        with reading(self._info):
            yield from prefetched(examples.take(count).batch(_BATCH)).as_numpy_iterator()
