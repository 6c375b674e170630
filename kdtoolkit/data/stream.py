"""What a data set that is streamed is read from: the examples of a split, in files."""

import abc
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from kdtoolkit._bar import counted
from kdtoolkit._types import Tensor
from kdtoolkit.data.parallel import parallel_map, prefetched
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

    Raises:
        MemoryError: an image takes more memory than there is, which is no damage. Other lack of it
            stays TensorFlow's `ResourceExhaustedError`.
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
        if isinstance(error, tf.errors.ResourceExhaustedError):
            if cause.startswith("MemoryError"):
                raise MemoryError(cause.removeprefix("MemoryError: ")) from error
            raise
        if said := re.search(r"assertion failed: \[(.*)\]$", cause):
            cause = re.sub(r"\\(.)", r"\1", said[1])  # TensorFlow escapes quotation marks
        elif info.kind == "folder" and "Jpeg" in error.message:
            from kdtoolkit.data import image_files

            if file := image_files.undecodable(info.path):
                cause = f"Cannot read image {file!r}: {cause}"
        raise DamagedDataError(
            f"Cannot read data set {info.name!r} in {info.path!r}: {cause}"
        ) from error


class Stream(abc.ABC):
    """The examples of one split as they are stored, or some of them; `len` counts these.

    Args:
        info: of the data set.
    """

    in_order: ClassVar[bool] = False
    """Whether `shuffled` has any order that it is given."""

    labels: np.ndarray | None = None
    """int32 `(n,)`; None where only reading tells them."""

    def __init__(self, info: DatasetInfo) -> None:
        self._info = info

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def subset(self, selected: np.ndarray) -> Self:
        """Some of these examples.

        Args:
            selected: their indices, ascending.
        """

    @abc.abstractmethod
    def stored(self) -> tf.data.Dataset:
        """Dataset of (position among these examples, what `decode` takes), in stored order."""

    @abc.abstractmethod
    def shuffled(self, order: Tensor) -> tf.data.Dataset:
        """Likewise, in the order of training as far as the files allow.

        Args:
            order: positions in the order of training, int32 `(n,)`.
        """

    @abc.abstractmethod
    def decode(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """A stored example -> (uint8 image of the data set's shape, int32 label).

        What is wrong with it fails a `tf.debugging.Assert` of one string, which `reading` tells.
        """

    @abc.abstractmethod
    def decode_crop(
        self, example: Tensor, choose: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Likewise, but what is scaled to the data set's shape is a box of the stored image.

        Args:
            example: as it is stored.
            choose: function of the stored height and width, integer tensors, that returns the box:
                top, left, height and width, int32 `(4,)`.
        """

    @abc.abstractmethod
    def identity(self) -> tuple[np.ndarray, ...]:
        """Arrays that tell these examples from others, without reading them."""

    def first_images(self, count: int) -> Iterator[np.ndarray]:
        """Yields the first `count` images in stored order, uint8 `(b, height, width, channels)`."""
        return (images for _, images, _ in self._decoded(min(count, len(self))))

    def load(self, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` examples: uint8 `(n, height, width, channels)`, int32 `(n,)`.

        Args:
            count: None for all.
        """
        count = len(self) if count is None else min(count, len(self))
        shape: Any = self._info.image_shape
        images = np.empty((count, *shape), np.uint8)
        labels = np.empty(count, np.int32)
        for positions, some_images, some_labels in self._decoded(count):
            images[positions], labels[positions] = some_images, some_labels
        return images, labels

    def _decoded(self, count):
        def decode(position, example):
            image, label = self.decode(example)
            return position, image, label

        examples = parallel_map(self.stored(), decode)
        batches = prefetched(examples.take(count).batch(_BATCH)).as_numpy_iterator()
        with reading(self._info):
            yield from counted(batches, -(-count // _BATCH), f"reading batches of {_BATCH} images")
