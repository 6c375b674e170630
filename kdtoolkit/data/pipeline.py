"""Splits of a data set as `tf.data` pipelines: in memory, or streamed from its files."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from kdtoolkit.data.augmentation import Augmentation, epoch_plan

SORT_WINDOW = 4096
"""How many records a `StreamingSplit` shuffles at a time."""


class _Split:
    """What both kinds of split share: the order of things, normalisation and augmentation."""

    def __init__(self, size, preprocessing, augmentation):
        self._size = size
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.views = None
        self._attach = None

    def __len__(self):
        return self._size

    def steps_per_epoch(self, batch_size):
        """Batches in an epoch; the last may be smaller."""
        if batch_size < 1:
            raise ValueError(f"Argument `batch_size` must be 1 or more. Received: {batch_size}")
        return -(-len(self) // batch_size)

    def batches(self, batch_size, views=None):
        """The images in stored order, normalised.

        Args:
            batch_size: images in a batch; the last may be smaller.
            views: a `Views`: the images of each view, one view after another. None for the images
                as they are, once.

        Returns:
            `tf.data.Dataset` of (float32 `(b, height, width, channels)`, int32 `(b,)`), of known
            cardinality.
        """
        steps = self.steps_per_epoch(batch_size)
        ordered = self._ordered(batch_size)

        def normalise(images, labels):
            return self.preprocessing(images), labels

        if views is None:
            return _finish(ordered, normalise, steps)

        def slices(view, order, offsets, flips):
            return tf.data.Dataset.from_tensor_slices((offsets, flips)).batch(batch_size)

        plans = self._plans(range(views.count), views.seed, views.generation, views)
        examples = tf.data.Dataset.zip(ordered.repeat(views.count), plans.flat_map(slices))

        def finish(example, crops):
            images, labels = normalise(*example)
            return self._crop(images, *crops), labels

        return _finish(examples, finish, steps * views.count)

    def in_views(self, views, attach=None):
        """This split, its epochs augmented from a fixed set and not afresh.

        Args:
            views: a `Views`.
            attach: function of a view's number and images' indices in stored order, integer tensors
                `()` and `(b,)`, that returns a dict of tensors `(b, ...)`. These come with the
                images of `epochs`; it is called in parallel. None for images alone.

        Returns:
            A split of the same images; their order in an epoch stays what it is.
        """
        split = copy.copy(self)
        split.views, split._attach = views, attach
        return split

    def epochs(self, batch_size, *, seed, generation=0, first_epoch=0, epochs, augment=True):
        """Shuffled epochs `first_epoch` to `epochs - 1`, one after another in one data set.

        For `fit(..., steps_per_epoch=split.steps_per_epoch(batch_size))`: batches of the next
        epoch are prepared while one ends. Everything drawn is a function of
        `(seed, generation, epoch, index)`, so the epochs after `first_epoch` are, byte for byte,
        those of a data set that started at 0.

        Args:
            batch_size: images in a batch; the last of an epoch may be smaller.
            seed, generation: integers, 0 or more.
            first_epoch, epochs: the first epoch, and the one after the last.
            augment: whether images are cropped and mirrored, as `augmentation` says.

        Returns:
            `tf.data.Dataset` of (float32 `(b, height, width, channels)`, int32 `(b,)`), of known
            cardinality. Where `in_views` attached values, the images are in a dict with them,
            `{"image": images, **values}`.
        """
        steps = self.steps_per_epoch(batch_size)
        if min(seed, generation) < 0 or not 0 <= first_epoch <= epochs:
            raise ValueError(
                "Arguments `seed` and `generation` must be 0 or more and `first_epoch` from 0 to "
                f"`epochs`. Received: seed={seed}, generation={generation}, "
                f"first_epoch={first_epoch}, epochs={epochs}"
            )
        if self._attach and not augment:
            raise ValueError(
                "Argument `augment` must be True where values belong to augmented images. "
                f"Received: augment={augment}"
            )

        def finish(images, labels, offsets, flips, indices, view):
            images = self.preprocessing(images)
            if augment:
                images = self._crop(images, offsets, flips)
            if self._attach:
                images = {"image": images, **self._attach(view, indices)}
            return images, labels

        plans = self._plans(range(first_epoch, epochs), seed, generation, self.views).prefetch(1)
        return _finish(self._shuffled(plans, batch_size), finish, steps * (epochs - first_epoch))

    def fingerprint(self):
        """SHA-256 of what a network sees: images, labels, preprocessing and augmentation.

        Returns:
            str of 64 hexadecimal digits. Streamed images are not read: the names and sizes of
            their files stand for them, and which of their examples are in this split.
        """
        digest = hashlib.sha256(repr((self.preprocessing, self.augmentation)).encode())
        for part in self._identity():
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()

    def _plans(self, epochs, seed, generation, views):
        """Dataset of the epochs' (view, order, offsets, flips)."""
        count = views.count if views else 1

        def draw(epoch):
            return epoch_plan(len(self), seed, generation, int(epoch), self.augmentation, views)

        def plan(epoch):
            order, offsets, flips = tf.numpy_function(
                draw, [epoch], [tf.int32, tf.int32, tf.bool], stateful=False
            )
            return (
                epoch % count,
                tf.ensure_shape(order, [len(self)]),
                tf.ensure_shape(offsets, [len(self), 2]),
                tf.ensure_shape(flips, [len(self)]),
            )

        return tf.data.Dataset.range(epochs.start, epochs.stop).map(plan)

    def _crop(self, images, offsets, flips):
        return crop_and_flip(images, offsets, flips, self.augmentation.pad)


class Split(_Split):
    """Images in memory.

    Attributes:
        images: uint8 `(n, height, width, channels)`.
        labels: int32 `(n,)`.
        preprocessing: a `Preprocessing`.
        augmentation: an `Augmentation`.
        views: a `Views` if crops and flips are fixed by `in_views`, else None.
    """

    def __init__(self, images, labels, preprocessing, augmentation=Augmentation()):  # noqa: B008
        super().__init__(len(images), preprocessing, augmentation)
        self.images = images
        self.labels = labels

    def pixels(self, count=None):
        """The first `count` images as they are stored, and their labels; None for all.

        Returns:
            NumPy arrays, uint8 `(n, height, width, channels)` and int32 `(n,)`.
        """
        return self.images[:count], self.labels[:count]

    def _identity(self):
        return self.images, self.labels

    def _ordered(self, batch_size):
        gather = self._gather()

        def batch(step):
            start = step * batch_size
            return gather(tf.range(start, tf.minimum(start + batch_size, len(self))))

        steps = tf.data.Dataset.range(self.steps_per_epoch(batch_size))
        return _parallel(steps, batch)

    def _shuffled(self, plans, batch_size):
        gather = self._gather()

        def slices(view, order, offsets, flips):
            def batch(step):
                indices = order[step * batch_size : (step + 1) * batch_size]
                return tf.gather(offsets, indices), tf.gather(flips, indices), indices, view

            return tf.data.Dataset.range(self.steps_per_epoch(batch_size)).map(batch)

        def batch(offsets, flips, indices, view):
            return *gather(indices), offsets, flips, indices, view

        return _parallel(plans.flat_map(slices), batch)

    def _gather(self):
        # One copy for the pipeline, captured as a tensor: no constant of a graph, which may not
        # exceed 2 GiB, and never on an accelerator, which the pipeline would read back.
        with tf.device("CPU:0"):
            images, labels = tf.constant(self.images), tf.constant(self.labels)
        return lambda indices: (tf.gather(images, indices), tf.gather(labels, indices))


class StreamingSplit(_Split):
    """Images read from TensorFlow Datasets' files in every epoch.

    An epoch goes through the files in random order, several at a time, and sorts every
    `SORT_WINDOW` records into the order of its `epoch_plan`. A split of no more than one window is
    therefore the same, byte for byte, as a `Split` of its images. A part of a stored split, such as
    validation images, is found by going through all of its files, decoding that part alone.

    Attributes:
        preprocessing: a `Preprocessing`.
        augmentation: an `Augmentation`.
        views: as in `Split`.
    """

    def __init__(self, records, preprocessing, augmentation=Augmentation()):  # noqa: B008
        """
        Args:
            records: `sources.Records`.
        """
        super().__init__(len(records), preprocessing, augmentation)
        self._records = records

    def pixels(self, count=None):
        """As `Split.pixels`; the images are read from the files."""
        count = len(self) if count is None else min(count, len(self))
        examples = self._ordered(batch_size=256).unbatch().take(count).batch(256)
        images, labels = zip(*examples.as_numpy_iterator(), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def _identity(self):
        files = [Path(file) for file in self._records.files]
        names = np.array([file.name for file in files])
        return names, np.array([file.stat().st_size for file in files]), self._records._positions

    def _ordered(self, batch_size):
        examples = self._records.read()
        return _parallel(examples, lambda _, record: self._records.decode(record)).batch(batch_size)

    def _shuffled(self, plans, batch_size):
        def epoch(view, order, offsets, flips):
            due = tf.math.invert_permutation(order)

            def sort(positions, records):
                by_due = tf.argsort(tf.gather(due, positions))
                return tf.gather(positions, by_due), tf.gather(records, by_due)

            def decode(position, record):
                crop = offsets[position], flips[position]
                return *self._records.decode(record), *crop, position

            # Files are opened in the order in which their first images are due.
            first = tf.minimum(self._records.starts, len(self) - 1)
            files = tf.argsort(tf.gather(due, first), stable=True)
            examples = self._records.read(files, cycle_length=16)
            examples = examples.batch(SORT_WINDOW).map(sort).prefetch(1).unbatch()
            batches = _parallel(examples, decode).batch(batch_size)
            return batches.map(lambda *batch: (*batch, view))

        return plans.flat_map(epoch)


def crop_and_flip(images, offsets, flips, pad):
    """Crops images out of their zero-padded selves and mirrors some of them.

    `out[b, y, x] = padded[b, offsets[b, 0] + y, offsets[b, 1] + x']`, where `x'` is
    `width - 1 - x` if `flips[b]`, else `x`.

    Args:
        images: float `(b, height, width, channels)`, normalised: the padding is the mean colour.
        offsets: int32 `(b, 2)`, from 0 to `2 pad`.
        flips: bool `(b,)`.
        pad: pixels on each side.

    Returns:
        Like `images`.
    """
    height, width, channels = images.shape[1:]
    batch = tf.shape(images)[0]
    columns = tf.range(width)
    columns = tf.where(flips[:, None], width - 1 - columns, columns) + offsets[:, 1:] - pad
    rows = tf.range(height) + offsets[:, :1] - pad
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    starts = tf.range(batch)[:, None, None] * (height * width)
    # One gather of whole pixels for the batch; all that falls outside reads the zero at its end.
    pixels = tf.concat([tf.reshape(images, [-1, channels]), tf.zeros([1, channels])], axis=0)
    source = starts + rows[:, :, None] * width + columns[:, None, :]
    return tf.gather(pixels, tf.where(inside, source, batch * height * width))


def _parallel(dataset, function):
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _finish(dataset, function, cardinality):
    dataset = _parallel(dataset, function).apply(
        tf.data.experimental.assert_cardinality(cardinality)
    )
    options = tf.data.Options()
    # The data are not one file a worker: each worker takes its share of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
