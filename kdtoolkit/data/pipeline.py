"""Splits of a data set as `tf.data` pipelines: in memory, or streamed from its files."""

import abc
import copy
import hashlib
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import tensorflow as tf

from kdtoolkit._checks import ArgumentError, Integers, Words, check
from kdtoolkit._types import Tensor
from kdtoolkit.data import distortions
from kdtoolkit.data.augmentation import Augmentation, Augmenter, Views, epoch_plan
from kdtoolkit.data.examples import Examples
from kdtoolkit.data.parallel import parallel_map, prefetched
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.stream import Stream

Attach = Callable[[Tensor, Tensor], dict[str, Any]]


class _Split(abc.ABC):
    """What both kinds of split share: the order of things, normalisation and augmentation."""

    def __init__(
        self,
        size: int,
        preprocessing: Preprocessing,
        augmentation: Augmenter,
    ) -> None:
        self._size = size
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.views: Views | None = None
        self._attach: Attach | None = None

    def __len__(self) -> int:
        return self._size

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last may be smaller."""
        check("batch_size", batch_size, Integers(1))
        return -(-len(self) // batch_size)

    def batches(self, batch_size: int, views: Views | None = None) -> tf.data.Dataset:
        """The images in stored order, normalised.

        Args:
            batch_size: images in a batch; the last may be smaller.
            views: a `Views`: the images of each view, one view after another. None for the images
                as they are, once.

        Returns:
            `tf.data.Dataset` of (float32 `(b, height, width, channels)`, int32 `(b,)`), of known
            cardinality.

        Raises:
            ValueError: as of `in_views`.
        """
        steps = self.steps_per_epoch(batch_size)

        def finish(images, labels, *draws):
            return self._prepare(images, *draws), labels

        ordered = self._ordered(batch_size)
        if views is None:
            return _finish(ordered(), finish, steps)
        self._check_views()
        plans = self._plans(range(views.count), views.seed, views.generation, views)
        shown = plans.flat_map(lambda view, order, *draws: ordered(*draws))
        return _finish(shown, finish, steps * views.count)

    def in_views(self, views: Views, attach: Attach | None = None) -> Self:
        """This split, its epochs augmented from a fixed set and not afresh.

        Args:
            views: a `Views`.
            attach: function of a view's number and images' indices in stored order, integer tensors
                `()` and `(b,)`, that returns a dict of tensors `(b, ...)`. These come with the
                images of `epochs`; it is called in parallel. None for images alone.

        Returns:
            A split of the same images; their order in an epoch stays what it is.

        Raises:
            ValueError: the augmentation mixes images, and another image with each in every epoch.
        """
        self._check_views()
        split = copy.copy(self)
        split.views, split._attach = views, attach
        return split

    def epochs(
        self,
        batch_size: int,
        *,
        seed: int,
        generation: int = 0,
        first_epoch: int = 0,
        epochs: int,
        augment: bool = True,
        on_device: bool = False,
    ) -> tf.data.Dataset:
        """Shuffled epochs `first_epoch` to `epochs - 1`, one after another in one data set.

        For `fit(..., steps_per_epoch=split.steps_per_epoch(batch_size))`: batches of the next
        epoch are prepared while one ends. Everything drawn is a function of
        `(seed, generation, epoch, index)`, so the epochs after `first_epoch` are, byte for byte,
        those of a data set that started at 0.

        Args:
            batch_size: images in a batch; the last of an epoch may be smaller.
            seed, generation: integers, 0 or more.
            first_epoch, epochs: the first epoch, and the one after the last.
            augment: whether images are changed as `augmentation` says.
            on_device: whether images are left to `reader`: batches have, in `Examples`, what it
                makes them of.

        Returns:
            `tf.data.Dataset` of (float32 `(b, height, width, channels)`, int32 `(b,)`), of known
            cardinality. Where `in_views` attached values, `Examples` of both are in place of the
            images; where the augmentation mixes images, labels are float32 `(b, classes)`.
        """
        steps = self.steps_per_epoch(batch_size)
        check("seed", seed, Integers(0))
        check("generation", generation, Integers(0))
        check("first_epoch", first_epoch, Integers(0, epochs))
        if self._attach and not augment:
            accepted = "True where values belong to augmented images"
            raise ArgumentError("augment", accepted, augment)

        def finish(images, labels, *drawn):
            *draws, indices, view = drawn
            attached = self._attach(view, indices) if self._attach else {}
            if on_device:
                return Examples((), attached, (indices, *draws)), labels
            images = self._prepare(images, *draws)
            if draws:
                images, labels = self.augmentation.mix(images, labels, draws)
            return _with(attached, images), labels

        plans = self._plans(range(first_epoch, epochs), seed, generation, self.views, augment)
        batches = self._shuffled(plans.prefetch(1), batch_size, on_device)
        return _finish(batches, finish, steps * (epochs - first_epoch))

    def reader(self) -> Callable[[Any], Any]:
        """Keeps the images, as they are stored, in the memory of the device.

        Returns:
            Function of the `x` of a batch of `epochs(..., on_device=True)` that returns the `x` of
            the same batch without `on_device`, for `Trainer.compile(reader=...)`: a training step
            then gathers, crops and mirrors its images itself, and a few integers an image are all
            that is sent to it. What is `x` without `on_device` already, it returns as it is.

        Raises:
            ValueError: `bytes_for_device` is None.
        """
        if self.bytes_for_device is None:
            accepted = "False for images that are streamed, or augmented by more than crops"
            raise ArgumentError("on_device", accepted, True)
        images = tf.constant(self.images)  # type: ignore[attr-defined]  # of a `Split`

        def read(x):
            if not isinstance(x, Examples) or not x.stored:
                return x
            indices, *draws = x.stored
            return _with(x.attached, self._prepare(tf.gather(images, indices), *draws))

        return read

    def fingerprint(self) -> str:
        """SHA-256 of what a network sees: images, labels, preprocessing and augmentation.

        Returns:
            str of 64 hexadecimal digits. Streamed images are not read: the names and sizes of
            their files stand for them, which of their examples are in this split, and the name
            of their label.
        """
        digest = hashlib.sha256(repr((self.preprocessing, self.augmentation)).encode())
        for part in self._identity():
            digest.update(repr((part.dtype.str, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @property
    @abc.abstractmethod
    def bytes_for_device(self) -> int | None:
        """What `reader` keeps on the device, in bytes; None where it cannot."""

    @abc.abstractmethod
    def _identity(self):
        """Arrays that tell the images of this split from others."""

    @abc.abstractmethod
    def _ordered(self, batch_size):
        """Function of draws: dataset of batches of stored images, labels and draws, in order."""

    @abc.abstractmethod
    def _shuffled(self, plans, batch_size, on_device):
        """Dataset of the batches of all plans: (images, labels, *draws, indices, view)."""

    def _check_views(self):
        if self.augmentation.mixes:
            accepted = "left out where images are mixed with each other, anew in every epoch"
            raise ArgumentError("views", accepted, Words("views"))

    def _plans(self, epochs, seed, generation, views, augment=True):
        """Dataset of the epochs' (view, order, *draws); no draws where nothing is augmented."""
        count = views.count if views else 1
        # Of no images: the types and shapes of what is drawn for each.
        likes = epoch_plan(0, seed, generation, 0, self.augmentation)
        parts = len(likes) if augment else 1

        def draw(epoch):
            return epoch_plan(len(self), seed, generation, int(epoch), self.augmentation, views)

        def plan(epoch):
            dtypes = [tf.as_dtype(like.dtype) for like in likes]
            drawn = tf.numpy_function(draw, [epoch], dtypes, stateful=False)
            shaped = [
                tf.ensure_shape(part, [len(self), *like.shape[1:]])
                for part, like in zip(drawn, likes, strict=True)
            ]
            return epoch % count, *shaped[:parts]

        return tf.data.Dataset.range(epochs.start, epochs.stop).map(plan)

    def _prepare(self, images, *draws):
        """Stored images normalised, and augmented where something was drawn for them."""
        if not draws:
            return self.preprocessing(images)
        return self.augmentation.apply(self._cut(images, draws), draws, self.preprocessing)

    @abc.abstractmethod
    def _cut(self, images, draws):
        """Images as `augmentation` takes them."""


class Split(_Split):
    """Images in memory.

    Attributes:
        images: uint8 `(n, height, width, channels)`.
        labels: int32 `(n,)`.
        preprocessing: a `Preprocessing`.
        augmentation: an `Augmenter`.
        views: a `Views` if crops and flips are fixed by `in_views`, else None.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        preprocessing: Preprocessing,
        augmentation: Augmenter = Augmentation(),  # noqa: B008
    ) -> None:
        super().__init__(len(images), preprocessing, augmentation)
        self.images = images
        self.labels = labels

    def pixels(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` images as they are stored, and their labels; None for all.

        Returns:
            NumPy arrays, uint8 `(n, height, width, channels)` and int32 `(n,)`.
        """
        return self.images[:count], self.labels[:count]

    def spread(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """As `pixels`, of `most` images from all over the split, or of all where it has no more.

        For what is to be said of the whole split: the images of a folder are sorted by class.
        """
        if len(self) <= most:
            return self.pixels()
        indices = _spread(len(self), most)
        return self.images[indices], self.labels[indices]

    @property
    def bytes_for_device(self) -> int | None:
        """What `reader` keeps on the device; None where XLA cannot augment it."""
        return self.images.nbytes if self.augmentation.for_device else None

    def _identity(self):
        return self.images, self.labels

    def _ordered(self, batch_size):
        gather = self._gather(self.images, self.labels)

        def ordered(*draws):
            def batch(step):
                start = step * batch_size
                end = tf.minimum(start + batch_size, len(self))
                return *gather(tf.range(start, end)), *(part[start:end] for part in draws)

            return parallel_map(tf.data.Dataset.range(self.steps_per_epoch(batch_size)), batch)

        return ordered

    def _shuffled(self, plans, batch_size, on_device):
        # Indices stand for the images that the device has.
        images = np.arange(len(self), dtype=np.int32) if on_device else self.images
        gather = self._gather(images, self.labels)

        def slices(view, order, *draws):
            def batch(step):
                indices = order[step * batch_size : (step + 1) * batch_size]
                return *(tf.gather(part, indices) for part in draws), indices, view

            return tf.data.Dataset.range(self.steps_per_epoch(batch_size)).map(batch)

        def batch(*drawn):
            *draws, indices, view = drawn
            return *gather(indices), *draws, indices, view

        return parallel_map(plans.flat_map(slices), batch)

    def _cut(self, images, draws):
        if not self.augmentation.cuts_boxes:
            return images
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        sizes = tf.fill([count], height), tf.fill([count], width)
        boxes = self.augmentation.boxes(*sizes, draws)
        return distortions.enlarge(images, boxes, self.augmentation.mirrored(draws))

    def _gather(self, images, labels):
        # One copy for the pipeline, captured as a tensor: no constant of a graph, which may not
        # exceed 2 GiB (so never call this in one), and never on an accelerator, which the pipeline
        # would read back.
        with tf.device("CPU:0"):
            images, labels = tf.constant(images), tf.constant(labels)
        return lambda indices: (tf.gather(images, indices), tf.gather(labels, indices))


class StreamingSplit(_Split):
    """Images read from their files in every epoch.

    Image files are read in the order of `epoch_plan`: such a split is the same, byte for byte, as a
    `Split` of its images. Of TensorFlow Datasets' files an epoch is in that order within every
    `SORT_WINDOW` records, so that a split of no more than one window is the same too.

    But a `PhotographAugmentation` cuts its crops out of the images as they are stored, and of a
    `Split` out of the scaled ones, of which a small crop is less sharp.

    Memory holds, for each core, an image while it is decoded and a batch while it is augmented, two
    batches ahead, and of records two windows. Of every image it holds what is drawn for an epoch,
    and of an image file its path and label: some 400 bytes in all.

    Attributes:
        preprocessing: a `Preprocessing`.
        augmentation: an `Augmenter`.
        views: as in `Split`.
    """

    def __init__(
        self,
        stream: Stream,
        preprocessing: Preprocessing,
        augmentation: Augmenter = Augmentation(),  # noqa: B008
    ) -> None:
        """
        Args:
            stream: of a split, or of a part of it; `load` makes them.
        """
        super().__init__(len(stream), preprocessing, augmentation)
        self._stream = stream

    def pixels(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Split.pixels`; the images are read from the files."""
        return self._stream.load(count)

    def spread(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Split.spread`; of records, which were shuffled when they were stored, the first."""
        if self._stream.labels is None or len(self) <= most:
            return self.pixels(most)
        return self._stream.subset(_spread(len(self), most)).load()

    @property
    def bytes_for_device(self) -> None:
        """As `Split.bytes_for_device`: None, for images that are in no memory."""
        return None

    def _identity(self):
        return self._stream.identity()

    def _ordered(self, batch_size):
        def ordered(*draws):
            def decode(position, example):
                drawn = [part[position] for part in draws]
                return *self._decode(example, *drawn), *drawn

            return parallel_map(self._stream.stored(), decode).batch(batch_size)

        return ordered

    def _shuffled(self, plans, batch_size, on_device):
        if on_device:
            self.reader()  # says that there is none

        def epoch(view, order, *draws):
            def decode(position, example):
                drawn = [part[position] for part in draws]
                return *self._decode(example, *drawn), *drawn, position

            batches = parallel_map(self._stream.shuffled(order), decode).batch(batch_size)
            return batches.map(lambda *batch: (*batch, view))

        return plans.flat_map(epoch)

    def _cut(self, images, draws):
        return images  # boxes were cut out while they were decoded

    def _decode(self, example, *draws):
        if not draws or not self.augmentation.cuts_boxes:
            return self._stream.decode(example)

        def box(height, width):
            return self.augmentation.boxes(height, width, draws)

        image, label = self._stream.decode_crop(example, box)
        # One by one: in a batch, those that stay as they are would be copied as well.
        mirrored = self.augmentation.mirrored(draws)
        return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image), label


def _spread(size, count):
    """Indices of `count` of `size` images, ascending and as far from each other as can be."""
    return np.arange(count) * size // count


def _with(attached, images):
    return Examples(images, attached) if attached else images


def _finish(dataset, function, cardinality):
    batches = parallel_map(dataset, function)
    return prefetched(batches.apply(tf.data.experimental.assert_cardinality(cardinality)))
