"""What TensorFlow Datasets stored, as a stream."""

import copy
from pathlib import Path

import numpy as np
import tensorflow as tf

from kdtoolkit._machine import cores
from kdtoolkit.data import jpeg
from kdtoolkit.data.scaling import cover, cut, stretch
from kdtoolkit.data.stream import Stream

SORT_WINDOW = 4096
"""How many records a `StreamingSplit` shuffles at a time."""


class Records(Stream):
    """The examples of one split as TensorFlow Datasets stored them, or some of them.

    An epoch goes through the files in random order, several at a time, and sorts every
    `SORT_WINDOW` records into the order of training. Some of a stored split are found by going
    through all of its files; no others are decoded.

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

        super().__init__(info)
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
        # Only what is used is parsed and decoded.
        self._features = tfds.features.FeaturesDict(features)
        self._skip_decoding = tfds.decode.SkipDecoding()

    def __len__(self):
        return self._size

    def subset(self, selected):
        selected = np.flatnonzero(self._positions >= 0)[selected]
        subset = copy.copy(self)
        subset.starts = np.searchsorted(selected, self._first_stored)
        subset._positions = np.full(len(self._positions), -1)
        subset._positions[selected] = np.arange(len(selected))
        subset._size = len(selected)
        return subset

    def stored(self):
        return self._read(tf.range(len(self.files)))

    def shuffled(self, order):
        due = tf.math.invert_permutation(order)

        def sort(positions, records):
            by_due = tf.argsort(tf.gather(due, positions))
            return tf.gather(positions, by_due), tf.gather(records, by_due)

        # Files are opened in the order in which their first images are due.
        first = tf.minimum(self.starts, len(self) - 1)
        files = tf.argsort(tf.gather(due, first), stable=True)
        examples = self._read(files, cycle_length=16)
        return examples.batch(SORT_WINDOW).map(sort).prefetch(1).unbatch()

    def identity(self):
        files = [Path(file) for file in self.files]
        names = np.array([file.name for file in files])
        sizes = np.array([file.stat().st_size for file in files])
        return names, sizes, self._positions, np.array(self.label)

    def _read(self, order, cycle_length=1):
        """Dataset of (position among these examples, serialised example).

        Args:
            order: file numbers, an integer tensor: the files are opened in this order.
            cycle_length: how many files are read in turns; 1 for one after another.
        """
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
        example = self._features.deserialize_example(record)
        height, width, _ = self._info.image_shape
        image = tf.ensure_shape(cover(example["image"], (height, width)), self._info.image_shape)
        return image, self._checked(example[self.label])

    def decode_crop(self, record, choose):
        skip = {"image": self._skip_decoding}
        example = self._features.deserialize_example(record, decoders=skip)
        encoded, channels = example["image"], self._info.image_shape[-1]

        def crop_jpeg():
            return jpeg.decode_box(encoded, choose, channels, self._info.image_shape[:2])

        def crop_any():
            image = tf.io.decode_image(encoded, channels, expand_animations=False)
            return cut(image, choose)

        image = tf.cond(tf.io.is_jpeg(encoded), crop_jpeg, crop_any)
        image = tf.ensure_shape(stretch(image, self._info.image_shape[:2]), self._info.image_shape)
        return image, self._checked(example[self.label])

    def _checked(self, label):
        """The label as int32; only reading an example tells whether it is one of the classes."""
        classes = self._info.classes
        accepted = f"labels must be from 0 to {classes - 1}. Received: "
        said = tf.strings.join([accepted, tf.strings.as_string(label)])
        is_one = (label >= 0) & (label < classes)
        with tf.control_dependencies([tf.debugging.Assert(is_one, [said])]):
            return tf.cast(label, tf.int32)
